#!/usr/bin/python3
"""Plays a film (MP4 with H.264 and, if it has it, AAC) as a camera would, again and again, without encoding it anew.
A pipeline that shall run in real time has a `clocksync` behind each source.

    feed.py FILM [--once] PIPELINE...   into a GStreamer pipeline that has `appsrc name=video` and may have `name=audio`
    feed.py FILM --rtsp PORT            to everyone who plays rtsp://127.0.0.1:PORT/film; they share one stream

It prints `playing` once packets leave the sink named `out` (RTSP: once it listens). Needs Debian's python3-gi, and gir1.2-gst-rtsp-server-1.0 for RTSP.
"""

import argparse
import signal
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
from gi.repository import GLib, Gst, GstApp  # noqa: E402,F401

TRACKS = {"video": "qtdemux.video_0 ! queue max-size-bytes=0 max-size-buffers=0 max-size-time=0 ! h264parse ! video/x-h264,stream-format=avc,alignment=au",
          "audio": "qtdemux.audio_0 ! queue max-size-bytes=0 max-size-buffers=0 max-size-time=0 ! aacparse ! audio/mpeg,stream-format=raw"}


def read(film, track):
    """One track's caps and its packets with their pts and dts, in decoding order."""
    pipeline = Gst.parse_launch(f"filesrc name=file ! qtdemux name=qtdemux {TRACKS[track]} ! appsink name=sink sync=false")
    pipeline.get_by_name("file").set_property("location", film)
    sink = pipeline.get_by_name("sink")
    pipeline.set_state(Gst.State.PLAYING)
    caps, packets = None, []
    while sample := sink.emit("try-pull-sample", 5 * Gst.SECOND):
        caps = caps or sample.get_caps()
        packet = sample.get_buffer()
        packets.append((packet, packet.pts, packet.dts))
    error = pipeline.get_bus().pop_filtered(Gst.MessageType.ERROR)
    pipeline.set_state(Gst.State.NULL)
    if track == "video" and (error or not packets):
        sys.exit(f"{film}: no H.264 track: {error.parse_error().gerror.message if error else 'it is empty'}")
    return (caps, packets) if packets else None


class Feeder:
    """Hands one track to an appsrc as it asks, the timestamps of every round after those of the round before."""

    def __init__(self, source, track, length, once):
        self.packets, self.length, self.once = track[1], length, once
        self.next = 0
        source.set_property("caps", track[0])
        source.set_property("format", Gst.Format.TIME)
        source.set_property("max-bytes", 1 << 20)
        source.connect("need-data", self.need_data)

    def need_data(self, source, _size):
        turn, index = divmod(self.next, len(self.packets))
        if self.once and turn > 0:
            source.emit("end-of-stream")
            return
        self.next += 1
        # A copy in Python may be the packet itself, so what was written to it in the round before is not added to.
        packet, pts, dts = self.packets[index]
        packet = packet.copy()
        packet.pts = pts + turn * self.length
        if dts != Gst.CLOCK_TIME_NONE:
            packet.dts = dts + turn * self.length
        source.emit("push-buffer", packet)


class Film:
    def __init__(self, path, once):
        self.tracks = {name: track for name in TRACKS if (track := read(path, name))}
        timed = [(packet, pts) for track in self.tracks.values() for packet, pts, _ in track[1]]
        self.length = max(pts + packet.duration for packet, pts in timed if packet.duration != Gst.CLOCK_TIME_NONE)
        self.once = once

    def feed(self, element):
        """Attaches the tracks to the element's sources; returns the feeders, which must be kept."""
        sources = ((element.get_by_name(name), track) for name, track in self.tracks.items())
        return [Feeder(source, track, self.length, self.once) for source, track in sources if source]


def play(film, description):
    pipeline = Gst.parse_launch(" ".join(description))
    feeders = film.feed(pipeline)
    failure, arrived = [], []

    def packet(_pad, _info):
        """A sink is given its tenth packet when it has delivered the ninth: it is connected, and past the headers."""
        arrived.append(1)
        if len(arrived) < 10:
            return Gst.PadProbeReturn.OK
        print("playing", flush=True)
        return Gst.PadProbeReturn.REMOVE

    if sink := pipeline.get_by_name("out"):
        sink.get_static_pad("sink").add_probe(Gst.PadProbeType.BUFFER | Gst.PadProbeType.BUFFER_LIST, packet)

    def message(_bus, msg):
        if msg.type == Gst.MessageType.ERROR:
            failure.append(msg.parse_error().gerror.message)
        if msg.type in (Gst.MessageType.ERROR, Gst.MessageType.EOS):
            loop.quit()

    bus = pipeline.get_bus()
    bus.add_signal_watch()
    bus.connect("message", message)
    pipeline.set_state(Gst.State.PLAYING)
    loop.run()
    pipeline.set_state(Gst.State.NULL)
    del feeders
    if failure:
        sys.exit(f"stopped: {failure[0]}")


def serve_rtsp(film, port):
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GstRtspServer

    launch = "appsrc name=video ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1"
    if "audio" in film.tracks:
        launch += " appsrc name=audio ! aacparse ! rtpmp4gpay name=pay1 pt=97"
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f"( {launch} )")
    factory.set_shared(True)
    kept = []

    def configure(_factory, media):
        kept[:] = film.feed(media.get_element())

    factory.connect("media-configure", configure)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(port))
    server.get_mount_points().add_factory("/film", factory)
    if not server.attach(None):
        sys.exit(f"cannot listen on port {port}")
    print("playing", flush=True)
    loop.run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("film")
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--rtsp", type=int, metavar="PORT")
    parser.add_argument("pipeline", nargs="*")
    arguments = parser.parse_intermixed_args()
    Gst.init(None)
    loop = GLib.MainLoop()
    for number in (signal.SIGTERM, signal.SIGINT):
        GLib.unix_signal_add(GLib.PRIORITY_HIGH, number, loop.quit)
    film = Film(arguments.film, arguments.once)
    if arguments.rtsp:
        serve_rtsp(film, arguments.rtsp)
    else:
        play(film, arguments.pipeline)
