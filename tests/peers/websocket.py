"""WebSocket peers of the tests: `serve` echoes and prints its port; `talk URL` checks an echo through whatever lies between;
`hold URL` goes on talking on one connection until its input ends."""

import asyncio
import os
import sys

import websockets


async def echo(connection, *_):
    try:
        async for message in connection:
            await connection.send(message)
    except websockets.ConnectionClosed:
        pass


async def serve():
    async with websockets.serve(echo, "127.0.0.1", 0, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def talk(url):
    async with websockets.connect(url, max_size=None, extra_headers={"X-Test": "1"}) as connection:
        for message in ["hello", "", "grüße", b"\x00\xff" * 3, os.urandom(3 << 20)]:
            await connection.send(message)
            assert await connection.recv() == message, "an echo that is none"
        await (await connection.ping())
        # Many at once, in both directions.
        count = 2000
        sender = asyncio.create_task(send_all(connection, count))
        for index in range(count):
            assert await connection.recv() == str(index)
        await sender
        await connection.close(code=4000, reason="enough")
        assert connection.close_code == 4000
    print("ok")


async def hold(url):
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    async with websockets.connect(url, max_size=None) as connection:
        print("open", flush=True)
        count = 0
        while not ended.done():
            await connection.send(str(count))
            assert await connection.recv() == str(count)
            count += 1
            await asyncio.sleep(0.005)
        await connection.close(code=4000, reason="enough")
        assert connection.close_code == 4000
    print(f"ok {count}")


async def send_all(connection, count):
    for index in range(count):
        await connection.send(str(index))


MODES = {"serve": serve, "talk": talk, "hold": hold}
asyncio.run(MODES[sys.argv[1]](*sys.argv[2:]))
