"""Small helpers that every stage may use, and that know nothing of datasets or scores.

`files` writes files whole or not at all, and `cache` keeps verified arrays on disk. `arrow` passes arrays to Arrow and
back, `devices` resolves device names, `options` declares options, `optional` imports what only an extra installs, and
`text` prepares text for people.
"""
