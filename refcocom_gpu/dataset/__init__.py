"""The first stage: a name or a path in, a `Dataset` out, whose tables hold images, samples and examples.

Start at `table.load_dataset`. `known` lists the sets that have names, `locate` finds the source, `sources` reads it,
`records` flattens its records, and `checks` verifies them. `images` decodes the pictures on request, by way of
`headers`. `sample` makes the built-in dataset.
"""
