//! The origin as others see it: films in, titles out, and HTTP on a socket. ffmpeg and ffprobe are the foreign witnesses.

mod bad_input;
mod http;
mod packaging;
mod support;
