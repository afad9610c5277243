#!/usr/bin/env bash
# zstandard (Python): decompress() returns the first frame only and drops the rest without a word; backports.zstd
# returns all of it.
#
# Versions:  zstandard 0.25.0, backports.zstd 1.8.0 (compression.zstd of Python 3.14 has the same interface)
# Guess:     Frames may be joined (RFC 8878, section 3: a file is a sequence of frames), so decompressing gives all
#            of their content, as `zstd -d` does, or an error.
# Behaviour: zstandard.decompress() and ZstdDecompressor().decompress() give the first frame, also where more or
#            even garbage follows. stream_reader() and open() give all. A frame without its size in the header is an
#            error in decompress(). In backports.zstd decompress() takes all frames, a decompressor object stops
#            after one and keeps the rest in unused_data.
# For users: A follower of the stream in Python should take backports.zstd or compression.zstd, or
#            ZstdDecompressor().stream_reader(..., read_across_frames=True); and compare the length with what it
#            expects.
#
# Output:
#   zstandard.decompress: b'first, '
#   zstandard.ZstdDecompressor().decompress: b'first, '
#   zstandard.decompress, garbage at the end: b'first, '
#   zstandard, stream_reader: b'first, second'
#   backports.zstd.decompress: b'first, second'
#   backports.zstd.ZstdDecompressor().decompress: (b'first, ', True, True)
#   zstandard.decompress, no size in the header: could not determine content size in frame header
#   backports.zstd.decompress, the same: b'first'
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages zstandard==0.25.0 backports.zstd==1.8.0
"$python" - <<'PY'
import io
import zstandard
from backports import zstd
from lab import error_of, expect, finish

joined = zstd.compress(b"first, ") + zstd.compress(b"second")
expect("zstandard.decompress", zstandard.decompress(joined), b"first, ")
expect("zstandard.ZstdDecompressor().decompress", zstandard.ZstdDecompressor().decompress(joined), b"first, ")
expect("zstandard.decompress, garbage at the end", zstandard.decompress(zstd.compress(b"first, ") + b"garbage"), b"first, ")
expect("zstandard, stream_reader", zstandard.ZstdDecompressor().stream_reader(io.BytesIO(joined), read_across_frames=True).read(), b"first, second")
expect("backports.zstd.decompress", zstd.decompress(joined), b"first, second")
one = zstd.ZstdDecompressor()
expect("backports.zstd.ZstdDecompressor().decompress", (one.decompress(joined), one.eof, len(one.unused_data) > 0), (b"first, ", True, True))
writer = zstd.ZstdCompressor()
sizeless = writer.compress(b"first") + writer.flush()
expect("zstandard.decompress, no size in the header", error_of(lambda: zstandard.decompress(sizeless)), "could not determine content size in frame header")
expect("backports.zstd.decompress, the same", zstd.decompress(sizeless), b"first")
finish()
PY
