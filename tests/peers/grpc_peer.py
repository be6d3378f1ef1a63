"""gRPC peers of the tests, on bytes instead of generated messages: `serve` prints its port; `talk ADDRESS [CA]` calls every kind of
method through whatever lies between and checks messages, trailers, status, deadlines and cancellation; `hold ADDRESS AUTHORITY`
goes on talking in one call until its input ends; `refused ADDRESS AUTHORITY CODE WORD` expects that error and word of each call."""

import sys
import threading
import time
from concurrent import futures

import grpc

SERVICE = "test.Echo"


class Echo(grpc.GenericRpcHandler):
    def service(self, call):
        handlers = {
            f"/{SERVICE}/Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            f"/{SERVICE}/Down": grpc.unary_stream_rpc_method_handler(self.down),
            f"/{SERVICE}/Up": grpc.stream_unary_rpc_method_handler(self.up),
            f"/{SERVICE}/Both": grpc.stream_stream_rpc_method_handler(self.both),
            f"/{SERVICE}/Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            f"/{SERVICE}/Slow": grpc.unary_unary_rpc_method_handler(self.slow),
        }
        return handlers.get(call.method)

    def unary(self, request, context):
        context.set_trailing_metadata((("x-sum", str(sum(request))), ("x-blob-bin", b"\x00\xff")))
        return request

    def down(self, request, context):
        for index in range(int(request)):
            yield b"%d" % index

    def up(self, requests, context):
        return b"%d" % sum(len(request) for request in requests)

    def both(self, requests, context):
        for request in requests:
            yield request

    def fail(self, request, context):
        context.set_trailing_metadata((("x-why", "because"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: ü")

    def slow(self, request, context):
        time.sleep(5)
        return request


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers((Echo(),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()
    server.stop(0)


def talk(address, authority):
    options = [("grpc.max_receive_message_length", -1), ("grpc.default_authority", authority)]
    channel = grpc.insecure_channel(address, options=options)

    def method(kind, name):
        return getattr(channel, kind)(f"/{SERVICE}/{name}")

    answer, call = method("unary_unary", "Unary").with_call(b"\x01\x02\x03", timeout=5)
    trailers = dict(call.trailing_metadata())
    assert answer == b"\x01\x02\x03" and trailers["x-sum"] == "6" and trailers["x-blob-bin"] == b"\x00\xff", trailers
    large = bytes(range(256)) * 20000
    assert method("unary_unary", "Unary")(large, timeout=20) == large
    got = list(method("unary_stream", "Down")(b"1000", timeout=10))
    assert got == [b"%d" % index for index in range(1000)]
    assert method("stream_unary", "Up")((b"x" * 1000 for _ in range(500)), timeout=10) == b"500000"

    # Strict turns: each message must come back before the next is sent.
    turn = threading.Semaphore(1)

    def questions():
        for index in range(50):
            turn.acquire()
            yield b"%d" % index

    for index, reply in enumerate(method("stream_stream", "Both")(questions(), timeout=10)):
        assert reply == b"%d" % index
        turn.release()

    try:
        method("unary_unary", "Fail")(b"", timeout=5)
        raise SystemExit("no failure")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
        assert error.details() == "not now: ü", error.details()
        assert dict(error.trailing_metadata())["x-why"] == "because"
    try:
        method("unary_unary", "Slow")(b"", timeout=0.3)
        raise SystemExit("no deadline")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    try:
        method("unary_unary", "Nowhere")(b"", timeout=5)
        raise SystemExit("no such method, and yet an answer")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
    print("ok")


def refused(address, authority, code, word):
    channel = grpc.insecure_channel(address, options=[("grpc.default_authority", authority)])
    for kind, question in (("unary_unary", b""), ("stream_stream", iter((b"",)))):
        try:
            answer = getattr(channel, kind)(f"/{SERVICE}/Unary")(question, timeout=5)
            list(answer if kind == "stream_stream" else ())
            raise SystemExit("an answer")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode[code] and word in error.details(), error
    print("ok")


def hold(address, authority):
    channel = grpc.insecure_channel(address, options=[("grpc.default_authority", authority)])
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    turn = threading.Semaphore(1)

    def questions():
        index = 0
        while not ended.is_set():
            turn.acquire()
            yield b"%d" % index
            index += 1
            time.sleep(0.005)

    count = 0
    for reply in channel.stream_stream(f"/{SERVICE}/Both")(questions()):
        assert reply == b"%d" % count, reply
        if count == 0:
            print("open", flush=True)
        count += 1
        turn.release()
    print(f"ok {count}")


MODES = {"serve": serve, "talk": talk, "refused": refused, "hold": hold}
MODES[sys.argv[1]](*sys.argv[2:])
