"""A proxy in front of a server that answers some calls itself, as busy or absent servers do. It passes bytes on unread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from typing_extensions import Self

#: Answers instead of the server: status, message, metadata. None: the server answers.
Refusal = tuple[grpc.StatusCode, str, tuple[tuple[str, str], ...]] | None


class Front(grpc.GenericRpcHandler):
    """A proxy; a context that ends it."""

    def __init__(self, server: str, refuse: Callable[[str, dict[str, str]], Refusal]) -> None:
        """`refuse` decides by method and metadata."""
        self._refuse = refuse
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.insecure_channel(server, unlimited)
        self._server = grpc.server(futures.ThreadPoolExecutor(8), [self], options=unlimited)
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        self._server.start()

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Handles every method as streams of bytes in both directions, which unary calls are, too."""
        method = call.method
        refusal = self._refuse(method.rpartition("/")[2], dict(call.invocation_metadata))

        def handle(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            if refusal is not None:
                code, details, metadata = refusal
                context.set_trailing_metadata(metadata)
                context.abort(code, details)
            try:
                yield from self._channel.stream_stream(method)(requests)
            except grpc.RpcError as error:
                context.set_trailing_metadata(tuple(error.trailing_metadata() or ()))
                context.abort(error.code(), error.details())

        return grpc.stream_stream_rpc_method_handler(handle)

    def __enter__(self) -> Self:
        """The proxy itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends it."""
        self._server.stop(grace=None).wait()
        self._channel.close()
