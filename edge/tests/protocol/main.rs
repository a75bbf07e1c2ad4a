//! The protocol layer, without a cache behind it: each behaviour on HTTP/1.1, HTTP/2 and HTTP/3 alike, with real sockets.

mod drain;
mod exchange;
mod floods_quic;
mod floods_tcp;
mod frames;
mod hostile;
mod pacing;
mod plain;
mod priority;
mod records;
mod scripted;
mod slow;
mod smuggling;
mod support;
mod tls;
