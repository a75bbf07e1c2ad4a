"""Speaks QUIC and HTTP/3 with an edge by aioquic, which shares no code with Larder, and tells what came of it.

Reads {"ca": FILE, "port": PORT, "path": PATH, "scarce_port": PORT} from standard input; at the second port an edge has four places, so that it
asks a fifth client, and those before it, to show their addresses. Prints a JSON object by name of what was tried.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import socket
import sys

import aioquic.asyncio.protocol
import aioquic.h3.connection
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.logger import QuicLogger
from aioquic.quic.packet import QuicProtocolVersion

HOST = "127.0.0.1"
# No wait is shorter; none takes so long unless it fails.
PATIENCE_S = 60
# Of which no server knows (RFC 9000, 15: versions of this form are reserved to make servers negotiate).
UNKNOWN_VERSION = 0x1A2A3A4A


class Client(aioquic.asyncio.protocol.QuicConnectionProtocol):
    """A connection, with what became of it."""

    def __init__(self, quic) -> None:
        super().__init__(quic)
        self.http = aioquic.h3.connection.H3Connection(quic)
        self.shaken = None
        self.ended = asyncio.get_running_loop().create_future()
        self.answers: dict[int, dict] = {}
        self.received = 0

    def quic_event_received(self, event) -> None:
        kind = type(event).__name__
        if kind == "HandshakeCompleted":
            self.shaken = event
        elif kind == "ConnectionTerminated":
            if not self.ended.done():
                self.ended.set_result(event)
            for answer in self.answers.values():
                if not answer["whole"].done():
                    answer["whole"].set_exception(ConnectionError(f"ended with {event.error_code:#x}"))
        for told in self.http.handle_event(event):
            kind = type(told).__name__
            answer = self.answers.get(told.stream_id) if kind in ("DataReceived", "HeadersReceived") else None
            if answer is None:
                continue
            if kind == "HeadersReceived":
                answer["status"] = int(dict(told.headers)[b":status"])
            else:
                answer["digest"].update(told.data)
                answer["bytes"] += len(told.data)
                self.received += len(told.data)
            if told.stream_ended:
                answer["whole"].set_result(None)

    def ask(self, path: str) -> int:
        stream = self._quic.get_next_available_stream_id()
        whole = asyncio.get_running_loop().create_future()
        self.answers[stream] = {"digest": hashlib.sha256(), "bytes": 0, "status": 0, "whole": whole}
        head = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"127.0.0.1"), (b":path", path.encode())]
        self.http.send_headers(stream, head, end_stream=True)
        self.transmit()
        return stream

    async def answer(self, stream: int) -> dict:
        answer = self.answers[stream]
        await asyncio.wait_for(answer["whole"], PATIENCE_S)
        return {"status": answer["status"], "bytes": answer["bytes"], "digest": answer["digest"].hexdigest()}

    async def fetch(self, path: str) -> dict:
        return await self.answer(self.ask(path))

    async def move(self) -> None:
        """Goes on from another port, as after a change of network or of a router's mapping."""
        before = self._transport
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, local_addr=(HOST, 0))
        before.close()


class Edge:
    def __init__(self, asked: dict, port: int) -> None:
        self.ca, self.port = asked["ca"], port

    @contextlib.asynccontextmanager
    async def connect(self, ticket=None, tickets=None, first_version=None, early=None):
        configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name=HOST, idle_timeout=PATIENCE_S)
        configuration.load_verify_locations(self.ca)
        configuration.session_ticket = ticket
        configuration.quic_logger = QuicLogger()
        configuration.supported_versions = [QuicProtocolVersion.VERSION_1]
        if first_version is not None:
            configuration.supported_versions = [first_version, QuicProtocolVersion.VERSION_1]
            configuration.original_version = first_version
        handler = tickets.append if tickets is not None else None
        quic = QuicConnection(configuration=configuration, session_ticket_handler=handler)
        loop = asyncio.get_running_loop()
        transport, client = await loop.create_datagram_endpoint(lambda: Client(quic), local_addr=(HOST, 0))
        try:
            client.connect((HOST, self.port))
            if early is not None:
                early(client)
            await asyncio.wait_for(client.wait_connected(), PATIENCE_S)
            yield client
        finally:
            client.close()
            await asyncio.wait_for(client.wait_closed(), PATIENCE_S)
            client._transport.close()


def log(client: Client) -> list[dict]:
    """What aioquic logged (qlog)."""
    return client._quic.configuration.quic_logger.to_dict()["traces"][0]["events"]


def packets(client: Client, direction: str) -> set[str]:
    """The kinds of packets that were sent or received."""
    return {event["data"]["header"]["packet_type"] for event in log(client) if event["name"] == f"transport:packet_{direction}"}


async def handshake(edge: Edge, path: str) -> dict:
    async with edge.connect() as client:
        return {**await client.fetch(path), "alpn": client.shaken.alpn_protocol, "retry": "retry" in packets(client, "received")}


async def retry(edge: Edge, path: str) -> dict:
    async with contextlib.AsyncExitStack() as others:
        for _ in range(3):
            other = await others.enter_async_context(edge.connect())
            await other.fetch(path)
        async with edge.connect() as client:
            return {**await client.fetch(path), "retry": "retry" in packets(client, "received")}


async def resumption(edge: Edge, path: str) -> dict:
    tickets = []
    async with edge.connect(tickets=tickets) as client:
        await client.fetch(path)
        first = client.shaken.session_resumed
    async with edge.connect(ticket=tickets[0]) as client:
        answer = await client.fetch(path)
        return {**answer, "first": first, "resumed": client.shaken.session_resumed, "early_bytes": tickets[0].max_early_data_size or 0}


async def early_data(edge: Edge, path: str) -> dict:
    """Sends a request in 0-RTT packets, although the ticket does not allow it."""
    tickets, asked = [], []
    async with edge.connect(tickets=tickets) as client:
        await client.fetch(path)
    tickets[0].max_early_data_size = 0xFFFFFFFF
    async with edge.connect(ticket=tickets[0], early=lambda client: asked.append(client.ask(path))) as client:
        answer = await client.answer(asked[0])
        sent = "0RTT" in packets(client, "sent")
        return {**answer, "sent": sent, "accepted": client.shaken.early_data_accepted}


async def key_update(edge: Edge, path: str) -> dict:
    async with edge.connect() as client:
        answers = []
        for _ in range(3):
            client.request_key_update()
            answers.append(await client.fetch(path))
        # The server's key follows the client's with its next packet (RFC 9001, 6.2).
        updates = [event["data"] for event in log(client) if event["name"] == "security:key_updated"]
        followed = sum(update["key_type"] == "server_1rtt_secret" and update["trigger"] != "tls" for update in updates)
        return {**answers[-1], "same": all(answer == answers[0] for answer in answers), "followed": followed}


async def moving(edge: Edge, path: str, new_id: bool) -> dict:
    async with edge.connect() as client:
        ports = [client._transport.get_extra_info("sockname")[1]]
        stream = client.ask(path)
        while client.received == 0:
            await asyncio.sleep(0.001)
        before = client.received
        if new_id:
            client.change_connection_id()
        await client.move()
        await asyncio.wait_for(client.ping(), PATIENCE_S)
        ports.append(client._transport.get_extra_info("sockname")[1])
        answer = await client.answer(stream)
        return {**answer, "midway": before < answer["bytes"], "moved": ports[0] != ports[1]}


async def negotiation(edge: Edge, path: str) -> dict:
    async with edge.connect(first_version=UNKNOWN_VERSION) as client:
        return {**await client.fetch(path), "negotiated": "version_negotiation" in packets(client, "received")}


def negotiation_by_hand(edge: Edge) -> dict:
    """RFC 9000, 6.1 and 17.2.1; and what is too small is not answered (14.1)."""
    to, own = os.urandom(8), os.urandom(8)
    head = b"\xc0" + UNKNOWN_VERSION.to_bytes(4, "big") + bytes([8]) + to + bytes([8]) + own
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(PATIENCE_S)
        udp.connect((HOST, edge.port))
        # The second is answered after the first, if that is.
        udp.send(head.ljust(1199, b"\0").replace(to, bytes(8)))
        udp.send(head.ljust(1200, b"\0"))
        answer = udp.recv(2000)
    versions = [answer[at : at + 4].hex() for at in range(23, len(answer), 4)]
    return {
        "version": answer[1:5].hex(),
        "swapped": answer[5:14] == bytes([8]) + own and answer[14:23] == bytes([8]) + to,
        "offers_1": "00000001" in versions,
        "offers_unknown": f"{UNKNOWN_VERSION:08x}" in versions,
    }


async def main() -> None:
    asked = json.load(sys.stdin)
    path, edge, scarce = asked["path"], Edge(asked, asked["port"]), Edge(asked, asked["scarce_port"])
    told = {
        "handshake": await handshake(edge, path),
        "retry": await retry(scarce, path),
        "resumption": await resumption(edge, path),
        "early_data": await early_data(edge, path),
        "key_update": await key_update(edge, path),
        "rebinding": await moving(edge, path, new_id=False),
        "migration": await moving(edge, path, new_id=True),
        "negotiation": await negotiation(edge, path),
        "negotiation_by_hand": negotiation_by_hand(edge),
    }
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
