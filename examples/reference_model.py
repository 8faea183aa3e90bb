"""A small referring segmentation model, its drawn training scenes and its loss: what the other examples train.

Run alone it trains and prints the mIoU on the built-in sample after every epoch: `python examples/reference_model.py`.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import refcocom_gpu as rc
from refcocom_gpu.dataset.sample import draw_image, make_records
from refcocom_gpu.masks.rle import decode

SIDE = 48
"""Side of the square to which pictures are resized; the logits have this size too, and the metric resizes them."""

N_WORDS = 14
"""Sentences are padded or cut to this many words."""

PADDING, UNKNOWN = 0, 1
N_IMAGES, EPOCHS, BATCH_SIZE = 300, 6, 16
SAMPLE_SEED, TRAINING_SEED = 0, 1

LEFT_RIGHT = {"left": "right", "leftmost": "rightmost"}
TOP_BOTTOM = {"top": "bottom", "topmost": "lowest", "above": "below"}
"""Words that change places when a picture is mirrored."""


class Vocabulary:
    """The words of some sentences, numbered; any other word is `UNKNOWN`."""

    def __init__(self, sentences: list[str]) -> None:
        words = sorted({word for sentence in sentences for word in sentence.split()})
        self.ids = {word: number for number, word in enumerate(words, UNKNOWN + 1)}

    def __len__(self) -> int:
        return len(self.ids) + UNKNOWN + 1

    def __call__(self, sentence: str) -> Tensor:
        """Number the words of a sentence: int64 [N_WORDS]."""
        numbers = [self.ids.get(word, UNKNOWN) for word in sentence.split()][:N_WORDS]
        return torch.tensor(numbers + [PADDING] * (N_WORDS - len(numbers)))

    def swaps(self, pairs: dict[str, str]) -> Tensor:
        """Return the number that each number becomes when the words of each pair change places: int64 [len]."""
        table = torch.arange(len(self))
        for word, opposite in pairs.items():
            if word in self.ids and opposite in self.ids:
                table[self.ids[word]] = self.ids[opposite]
                table[self.ids[opposite]] = self.ids[word]
        return table


def prepare_image(picture: Image.Image) -> Tensor:
    """Resize a picture to the model's square: float32 [3, SIDE, SIDE] in −1…1."""
    pixels = np.array(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1


class TrainingSet(Dataset):
    """Scenes drawn from a seed other than the built-in sample's; each example is mirrored at random.

    Items: `image` float32 [3, SIDE, SIDE], `words` int64 [N_WORDS], `labels` float32 [1, SIDE, SIDE].
    """

    def __init__(self, n_images: int) -> None:
        self.images, self.masks, self.examples = [], [], []  # examples: image, mask, sentence
        for record in make_records(TRAINING_SEED, n_images):
            picture = Image.fromarray(draw_image(record, seed=TRAINING_SEED))
            self.images.append(prepare_image(picture))
            for sample in record["samples"]:
                mask = Image.fromarray(255 * decode(sample["mask"]).astype(np.uint8))
                small = np.array(mask.resize((SIDE, SIDE), Image.Resampling.BOX))
                self.masks.append(torch.from_numpy(small)[None] / 255)
                for sentence in sample["sentences"]:
                    self.examples.append((len(self.images) - 1, len(self.masks) - 1, sentence))
        self.vocabulary = Vocabulary([sentence for *_, sentence in self.examples])
        self.words = [self.vocabulary(sentence) for *_, sentence in self.examples]
        self.mirrors = [
            (-1, self.vocabulary.swaps(LEFT_RIGHT)),
            (-2, self.vocabulary.swaps(TOP_BOTTOM)),
        ]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        image, mask, _ = self.examples[i]
        item = {"image": self.images[image], "words": self.words[i], "labels": self.masks[mask]}
        for axis, swaps in self.mirrors:
            if torch.rand(()) < 0.5:
                item["image"], item["labels"] = item["image"].flip(axis), item["labels"].flip(axis)
                item["words"] = swaps[item["words"]]
        return item


def training_set(n_images: int = N_IMAGES) -> TrainingSet:
    """Draw the training scenes; about 40 ms each."""
    return TrainingSet(n_images)


def validation_set(vocabulary: Vocabulary, **options) -> rc.ExpressionDataset:
    """Return the built-in sample as the model reads it; `options`, such as `subset=100`, go to the dataset."""

    def transform(item: dict) -> dict[str, Tensor]:
        return {"image": prepare_image(item["image"]), "words": vocabulary(item["sentence"])}

    return rc.ExpressionDataset(rc.load_dataset("sample"), transform=transform, **options)


def norm(channels: int, **options) -> nn.Module:
    """Normalise features by image, so that an example's logits depend neither on its batch nor on its rank."""
    return nn.GroupNorm(8, channels, **options)


def down(n_in: int, n_out: int, kernel: int = 3) -> nn.Module:
    """Halve the resolution."""
    conv = nn.Conv2d(n_in, n_out, kernel, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, norm(n_out), nn.ReLU())


class Film(nn.Module):
    """A residual block whose features the sentence scales and shifts."""

    def __init__(self, channels: int, n_text: int, kernel: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
        self.norm = norm(channels, affine=False)
        self.condition = nn.Linear(n_text, 2 * channels)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """[B, C, h, w] and [B, D] to [B, C, h, w]."""
        scale, shift = self.condition(text)[:, :, None, None].chunk(2, 1)
        y = F.relu(self.norm(self.look(x)) * (1 + scale) + shift)
        return F.relu(x + self.out(y))


class Attention(nn.Module):
    """Attention between all cells, conditioned on the sentence: "below the green star", "largest"."""

    def __init__(self, channels: int, n_text: int, n_heads: int = 4) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm = nn.GroupNorm(1, channels)
        self.condition = nn.Linear(n_text, 2 * channels)
        self.ask = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """[B, C, h, w] and [B, D] to [B, C, h, w]."""
        B, C, h, w = x.shape
        scale, shift = self.condition(text)[:, :, None, None].chunk(2, 1)
        asked = self.ask(self.norm(x) * (1 + scale) + shift)
        parts = asked.reshape(B, 3, self.n_heads, C // self.n_heads, h * w).transpose(-1, -2)
        seen = F.scaled_dot_product_attention(*parts.unbind(1))  # [B, heads, h·w, C/heads]
        return x + self.out(seen.transpose(-1, -2).reshape(B, C, h, w))


class ReferenceModel(nn.Module):
    """A U-Net of three levels whose features are conditioned on the state a GRU reads from the words."""

    def __init__(self, n_words: int, channels: int = 24, n_text: int = 64) -> None:
        super().__init__()
        C, inner = channels, 64
        self.embed = nn.Embedding(n_words, n_text, padding_idx=PADDING)
        self.order = nn.Parameter(0.02 * torch.randn(N_WORDS, n_text))
        self.read = nn.Sequential(
            nn.Conv1d(n_text, 2 * n_text, 3, padding=1), nn.ReLU(), nn.Conv1d(2 * n_text, n_text, 1)
        )
        self.down1, self.down2, self.down3 = down(5, C, 4), down(C, 2 * C), down(2 * C, inner)
        self.think = nn.ModuleList()
        for _ in range(2):
            self.think += [Film(inner, n_text, 3), Attention(inner, n_text)]
        self.up2, self.merge2 = nn.Conv2d(inner, 2 * C, 1), Film(2 * C, n_text, 1)
        self.up1 = nn.Conv2d(2 * C, C, 1)
        self.out = nn.Conv2d(C, 4, 3, padding=1)
        # Training begins with all pixels set, which is easier to learn from than an empty mask.
        nn.init.constant_(self.out.bias, 2.0)

    def forward(
        self, image: Tensor, words: Tensor, labels: Tensor | None = None, **others: object
    ) -> dict[str, Tensor]:
        """Segment what the words name; other entries of a batch, such as `index`, are ignored.

        `image` [B, 3, SIDE, SIDE], `words` [B, N_WORDS] and `labels` [B, 1, SIDE, SIDE] give `loss`, if there are
        labels, and last `logits` [B, 1, SIDE, SIDE].
        """
        is_word = (words != PADDING)[:, None]  # [B, 1, N_WORDS]
        text = (self.read((self.embed(words) + self.order).transpose(1, 2)) * is_word).sum(2)
        axis = torch.linspace(-1, 1, SIDE, device=image.device)
        place = torch.stack(torch.meshgrid(axis, axis, indexing="ij"))  # [2, SIDE, SIDE]
        x = torch.cat([image, place.expand(len(image), -1, -1, -1)], 1)
        half = self.down1(x.contiguous(memory_format=torch.channels_last))
        quarter = self.down2(half)
        x = self.down3(quarter)
        for block in self.think:
            x = block(x, text)
        x = self.merge2(quarter + F.interpolate(self.up2(x), scale_factor=2.0), text)
        x = F.relu(half + F.interpolate(self.up1(x), scale_factor=2.0))
        logits = F.pixel_shuffle(self.out(x), 2)
        if labels is None:
            return {"logits": logits}
        return {"loss": loss(logits, labels), "logits": logits}


def make_model(vocabulary: Vocabulary, seed: int = 0) -> ReferenceModel:
    """Make the model with weights from a seed; the seed also governs all later random numbers."""
    torch.manual_seed(seed)
    return ReferenceModel(len(vocabulary)).to(memory_format=torch.channels_last)


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return twice the binary cross-entropy plus the dice loss; both inputs are [B, 1, h, w], labels in 0…1."""
    p = logits.sigmoid()
    overlap, total = (p * labels).sum((1, 2, 3)), (p + labels).sum((1, 2, 3))
    dice = 1 - (2 * overlap + 1) / (total + 1)
    return 2 * F.binary_cross_entropy_with_logits(logits, labels) + dice.mean()


def report(inside: float, offline: float) -> int:
    """Print mIoU of the hook and of the saved predictions; return the exit code, 0 if both have equal bits."""
    print(f"mIoU in the loop:              {inside!r}")
    print(f"mIoU of the saved predictions: {offline!r}")
    return int(inside != offline)


def make_optimizer(model: nn.Module, n_steps: int):
    """Make an optimizer, and its schedule over the steps of all epochs."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, max(2, n_steps), pct_start=0.15)
    return optimizer, schedule


def train_epoch(
    model: nn.Module, loader: DataLoader, optimizer, schedule, backward: Callable = Tensor.backward
) -> float:
    """Train on every batch once, and return the mean loss."""
    model.train()
    device = next(model.parameters()).device
    total = 0.0
    for batch in loader:
        batch_loss = model(**{name: values.to(device) for name, values in batch.items()})["loss"]
        optimizer.zero_grad()
        backward(batch_loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total += batch_loss.item()
    return total / len(loader)


def main() -> None:
    """Train, and print the mIoU on the built-in sample after each epoch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--images", type=int, default=N_IMAGES, help="training scenes")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    data = training_set(args.images)
    model = make_model(data.vocabulary, args.seed)
    loader = DataLoader(data, BATCH_SIZE, shuffle=True)
    optimizer, schedule = make_optimizer(model, args.epochs * len(loader))
    validation = DataLoader(validation_set(data.vocabulary), 64, collate_fn=rc.collate)
    metric = rc.RefCOCOMMetric(rc.MaskStore.build(rc.load_dataset("sample")))
    for epoch in range(args.epochs):
        start = time.perf_counter()
        mean_loss = train_epoch(model, loader, optimizer, schedule)
        seconds = time.perf_counter() - start
        model.eval()
        with torch.inference_mode():
            for batch in validation:
                metric.update(model(**batch)["logits"], batch["index"])
        miou = metric.compute()["refcocom/miou"].item()
        metric.reset()
        print(f"epoch {epoch}: loss {mean_loss:.3f}, mIoU {miou:.3f}, {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
