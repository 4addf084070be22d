"""Bodies that come compressed (`Content-Encoding: gzip`).

In:  the pieces of a body as they are received. Out: their content, never more of it than the caller asks for:
     what would inflate to gigabytes is stopped at the limit.
"""

import zlib

from starlette.datastructures import Headers

from preforch_service.errors import BadRequest, WrongContentEncoding

GZIP = ("gzip", "x-gzip")
"""Both are one (RFC 9110, 8.4.1.3)."""


class Gunzip:
    """One gzip member; a second one is refused, since none of many empty ones would count against a limit."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)

    def content(self, received: bytes, most: int) -> bytes:
        """What the piece holds, up to `most` bytes; where that is not all, the rest is lost.

        Raises BadRequest for what is not gzip.
        """
        try:
            content = self._inflate.decompress(received, most)
        except zlib.error as error:
            raise _invalid("it cannot be inflated") from error
        if self._inflate.unused_data:
            raise _invalid("something follows its end")
        return content

    def check_end(self) -> None:
        """Raise BadRequest where the body has ended too early."""
        if not self._inflate.eof:
            raise _invalid("it breaks off")


def gunzip_for(headers: Headers) -> Gunzip | None:
    """What the body has to go through, None for one that is not compressed.

    Raises WrongContentEncoding for any other compression.
    """
    codings = [part.strip().lower() for part in ",".join(headers.getlist("content-encoding")).split(",")]
    match [coding for coding in codings if coding not in ("", "identity")]:
        case []:
            return None
        case [coding] if coding in GZIP:
            return Gunzip()
        case others:
            raise WrongContentEncoding(f"Content-Encoding must be gzip or none, got {', '.join(others)!r}")


def _invalid(why: str) -> BadRequest:
    return BadRequest(f"the body is not the gzip that Content-Encoding announces: {why}", code="invalid_gzip")
