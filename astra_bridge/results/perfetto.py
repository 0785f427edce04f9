# SPDX-License-Identifier: MIT
"""Perfetto's trace format, as far as a timeline needs it: tracks, slices, flows and counters.

Like Chakra's messages these are built at run time, from the field numbers that Perfetto's schema
(protos/perfetto/trace) gives them, and work with every protobuf; the tests read what is written
with the package ``perfetto``, which needs a new one.
"""

from __future__ import annotations

from functools import cache
from typing import Any, BinaryIO

__all__ = ["TraceWriter"]

_MESSAGES = {
    "EventName": "iid=1:uint64 name=2:string",
    "InternedData": "event_names=2:EventName*",
    "ProcessDescriptor": "pid=1:int32 process_name=6:string",
    "CounterDescriptor": "unit_name=6:string",
    "TrackDescriptor": "uuid=1:uint64 name=2:string process=3:ProcessDescriptor "
    "parent_uuid=5:uint64 counter=8:CounterDescriptor child_ordering=11:int32 "
    "sibling_order_rank=12:int32",
    "DebugAnnotation": "int_value=4:int64 string_value=6:string name=10:string",
    "TrackEvent": "debug_annotations=4:DebugAnnotation* type=9:int32 name_iid=10:uint64 "
    "track_uuid=11:uint64 categories=22:string* double_counter_value=44:double "
    "flow_ids=47:fixed64* terminating_flow_ids=48:fixed64*",
    "TracePacket": "timestamp=8:uint64 trusted_packet_sequence_id=10:uint32 "
    "track_event=11:TrackEvent interned_data=12:InternedData sequence_flags=13:uint32 "
    "track_descriptor=60:TrackDescriptor",
    "Trace": "packet=1:TracePacket*",
}
_BEGIN, _END, _COUNTER = 1, 2, 4
_CLEARED, _NEEDED = 1, 2
_EXPLICIT_ORDER = 3
_SEQUENCE = 1


@cache
def _messages() -> dict[str, Any]:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    proto = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="timeline.proto", package="timeline", syntax="proto2"
    )
    for message, fields in _MESSAGES.items():
        descriptor = file.message_type.add(name=message)
        for item in fields.split():
            name, _, rest = item.partition("=")
            number, _, kind = rest.partition(":")
            field = descriptor.field.add(name=name, number=int(number))
            repeated = kind.endswith("*")
            field.label = proto.LABEL_REPEATED if repeated else proto.LABEL_OPTIONAL
            kind = kind.rstrip("*")
            if kind in _MESSAGES:
                field.type, field.type_name = proto.TYPE_MESSAGE, f".timeline.{kind}"
            else:
                field.type = proto.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"timeline.{name}"))
        for name in _MESSAGES
    }


class TraceWriter:
    """Writes packets one after the other; times are in ns, Perfetto's unit.

    Parameters
    ----------
    out : binary file
    """

    def __init__(self, out: BinaryIO) -> None:
        self._out, self._kinds = out, _messages()
        self._names: dict[str, int] = {}
        self._tracks = 0
        self._first = True
        self._buffer = self._kinds["Trace"]()

    def track(
        self, name: str, parent: int = 0, *, order: int = 0, counter: str | None = None
    ) -> int:
        """Add a track below another one; ``counter`` is the unit of one that holds values."""
        packet = self._packet()
        descriptor = packet.track_descriptor
        self._tracks += 1
        descriptor.uuid = self._tracks
        descriptor.name = name
        descriptor.child_ordering = _EXPLICIT_ORDER
        descriptor.sibling_order_rank = order
        if parent:
            descriptor.parent_uuid = parent
        if counter is not None:
            descriptor.counter.unit_name = counter
        return self._tracks

    def process(self, name: str, pid: int) -> int:
        """Add a track that others stand below."""
        packet = self._packet()
        self._tracks += 1
        descriptor = packet.track_descriptor
        descriptor.uuid = self._tracks
        descriptor.child_ordering = _EXPLICIT_ORDER
        descriptor.sibling_order_rank = pid
        descriptor.process.pid = pid
        descriptor.process.process_name = name
        return self._tracks

    def begin(
        self,
        track: int,
        time_ns: int,
        name: str,
        category: str,
        notes: dict[str, int | str] | None = None,
        *,
        flow: int = 0,
        ends_flow: int = 0,
    ) -> None:
        """Begin a slice; slices of a track nest."""
        packet = self._packet()
        packet.timestamp = time_ns
        event = packet.track_event
        event.type, event.track_uuid = _BEGIN, track
        event.name_iid = self._named(packet, name)
        event.categories.append(category)
        for key, value in (notes or {}).items():
            note = event.debug_annotations.add(name=key)
            if isinstance(value, int):
                note.int_value = value
            else:
                note.string_value = value
        if flow:
            event.flow_ids.append(flow)
        if ends_flow:
            event.terminating_flow_ids.append(ends_flow)

    def end(self, track: int, time_ns: int) -> None:
        """End the innermost slice of a track."""
        packet = self._packet()
        packet.timestamp = time_ns
        packet.track_event.type, packet.track_event.track_uuid = _END, track

    def value(self, track: int, time_ns: int, value: float) -> None:
        """The value of a counter from a time on."""
        packet = self._packet()
        packet.timestamp = time_ns
        event = packet.track_event
        event.type, event.track_uuid, event.double_counter_value = _COUNTER, track, value

    def flush(self) -> None:
        """Write what is not written yet."""
        self._out.write(self._buffer.SerializeToString())
        self._buffer = self._kinds["Trace"]()

    def _packet(self) -> Any:
        if len(self._buffer.packet) >= 4096:
            self.flush()
        packet = self._buffer.packet.add()
        packet.trusted_packet_sequence_id = _SEQUENCE
        packet.sequence_flags = _NEEDED | (_CLEARED if self._first else 0)
        self._first = False
        return packet

    def _named(self, packet: Any, name: str) -> int:
        """The number of a name, which is written once."""
        number = self._names.get(name)
        if number is None:
            number = self._names[name] = len(self._names) + 1
            packet.interned_data.event_names.add(iid=number, name=name)
        return number
