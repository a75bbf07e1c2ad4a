//! The way from here to one client: what it carries, by its transport's own account, and the options of a socket of TCP.

use std::{
    fmt,
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use socket2::SockRef;

use super::{Limits, quic};

/// What the kernel keeps of a connection with a cap that it has not sent yet (TCP_NOTSENT_LOWAT). More of it would be memory that does nothing, an answer
/// that nobody wants any more after a seek, and a queue that what is more urgent cannot overtake; less would be more wake-ups. Where there is no cap the
/// kernel takes what it will: what a slow client has not taken is then not in a slice of the cache, which has a budget.
const NOTSENT_BYTES_MAX: u32 = 256 << 10;
/// What a client must have been sent before its connection's window says anything about the way to it: more than ten datagrams or segments,
/// with which everybody begins.
const EVIDENCE_BYTES_MIN: u64 = 128 << 10;
/// How old an account of TCP's may be. One is a system call.
const TCP_ACCOUNT_AGE_MAX: Duration = Duration::from_millis(250);
/// `tcpi_delivery_rate_app_limited` of tcp(7)'s TCP_INFO: a bit that has no name in the libc crate.
const APP_LIMITED: (usize, u8) = (7, 1);

/// The way to a client.
#[derive(Clone, Default)]
pub enum Link {
    /// It says nothing of itself.
    #[default]
    Silent,
    /// TCP.
    Tcp(Arc<Tcp>),
    /// QUIC.
    Quic(quic::Connection),
}

/// What a link carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// How long there and back takes (smoothed).
    pub rtt: Duration,
    /// How much it carries; `None` as long as too little was sent to tell.
    pub bits_per_second: Option<u64>,
}

impl Link {
    /// What the transport says now, or said a moment ago. `None` if it says nothing.
    pub fn estimate(&self) -> Option<Estimate> {
        match self {
            Self::Silent => None,
            Self::Tcp(tcp) => tcp.estimate(quic::now()),
            Self::Quic(connection) => Some(of_quic(&connection.stats())),
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silent => "Silent",
            Self::Tcp(_) => "Tcp",
            Self::Quic(_) => "Quic",
        })
    }
}

fn of_quic(stats: &quic::ConnectionStats) -> Estimate {
    let carries = per_second(stats.path.cwnd, stats.path.rtt);
    Estimate { rtt: stats.path.rtt, bits_per_second: carries.filter(|_| stats.udp_tx.bytes >= EVIDENCE_BYTES_MIN) }
}

fn per_second(bytes: u64, time: Duration) -> Option<u64> {
    let nanos = time.as_nanos();
    let rate = (u128::from(bytes) * 8_000_000_000).checked_div(nanos)?;
    Some(u64::try_from(rate).unwrap_or(u64::MAX))
}

/// A connection's socket, as long as it is open.
pub struct Tcp(Mutex<Account>);

struct Account {
    /// `None` once the socket is about to be closed: its number may then be another's.
    socket: Option<RawFd>,
    read: Option<(Instant, Option<Estimate>)>,
}

impl Tcp {
    /// Whoever closes `socket` calls [`Self::closes`] before.
    pub(super) fn new(socket: &impl AsRawFd) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Account { socket: Some(socket.as_raw_fd()), read: None })))
    }

    /// The socket is closed after this.
    pub(super) fn closes(&self) {
        self.0.lock().socket = None;
    }

    fn estimate(&self, now: Instant) -> Option<Estimate> {
        // Held over the system call, so that nobody closes the socket meanwhile.
        let mut account = self.0.lock();
        if let Some((_, estimate)) = account.read.filter(|(read, _)| now.saturating_duration_since(*read) < TCP_ACCOUNT_AGE_MAX) {
            return estimate;
        }
        let socket = account.socket?;
        // SAFETY: it is open: who closes it says so first, and waits for this lock.
        let estimate = info(unsafe { BorrowedFd::borrow_raw(socket) }).map(|info| of_tcp(&info));
        account.read = Some((now, estimate));
        estimate
    }
}

/// What is taken from TCP_INFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Info {
    rtt: Duration,
    window_bytes: u64,
    bytes_acked: u64,
    /// Measured over the last round trip or so, in bytes per second.
    delivery_rate: u64,
    /// The rate was measured while there was not enough to send.
    is_app_limited: bool,
}

fn of_tcp(info: &Info) -> Estimate {
    let delivered = info.delivery_rate.saturating_mul(8);
    // A rate for which there was nothing to send is the least that the link carries, and the window what TCP takes it for.
    let carries = if info.is_app_limited || delivered == 0 {
        per_second(info.window_bytes, info.rtt).map(|window| window.max(delivered))
    } else {
        Some(delivered)
    };
    Estimate { rtt: info.rtt, bits_per_second: carries.filter(|_| info.bytes_acked >= EVIDENCE_BYTES_MIN) }
}

/// `None` where the system does not tell, or is too old to know the delivery rate (Linux 4.9).
fn info(socket: BorrowedFd<'_>) -> Option<Info> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the socket is open, and the system writes at most `length` bytes to a place that is ours.
    let outcome = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut length)
    };
    let known = std::mem::offset_of!(libc::tcp_info, tcpi_busy_time);
    if outcome != 0 || (length as usize) < known {
        return None;
    }
    let (byte, bit) = APP_LIMITED;
    // SAFETY: the place is larger than that, and was zeroed, so each of its bytes has a value.
    let is_app_limited = unsafe { info.as_ptr().cast::<u8>().add(byte).read() } & bit != 0;
    // SAFETY: it was zeroed, which is a value of each of its fields.
    let info = unsafe { info.assume_init() };
    Some(Info {
        rtt: Duration::from_micros(info.tcpi_rtt.into()),
        window_bytes: u64::from(info.tcpi_snd_cwnd) * u64::from(info.tcpi_snd_mss),
        bytes_acked: info.tcpi_bytes_acked,
        delivery_rate: info.tcpi_delivery_rate,
        is_app_limited,
    })
}

/// Sets what a socket for players has other than any. An option that the system does not know is done without.
pub(super) fn tune(stream: &tokio::net::TcpStream, limits: &Limits) {
    // Segments are written whole; waiting to fill a packet would only delay their ends.
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    if let Some(bits_per_second) = limits.connection_bits_per_second_max {
        let _ = socket.set_tcp_notsent_lowat(NOTSENT_BYTES_MAX);
        if let Err(error) = set_pacing_rate_max(stream, bits_per_second / 8) {
            tracing::warn!(%error, "the system does not hold a connection to pacing.connection_max");
        }
    }
}

/// Since Linux 4.13 TCP holds itself to it, whatever the queueing discipline.
fn set_pacing_rate_max(socket: &impl AsRawFd, bytes_per_second: u64) -> std::io::Result<()> {
    let length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the socket is open, and the system reads `length` bytes from a place that is ours. It takes 8 bytes (Linux 4.20), or 4.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MAX_PACING_RATE,
            (&raw const bytes_per_second).cast(),
            length,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let addr = listener.local_addr().expect("bound");
        let (accepted, connected) = tokio::join!(listener.accept(), TcpStream::connect(addr));
        (accepted.expect("accepts").0, connected.expect("connects"))
    }

    #[test]
    fn a_window_per_round_trip_is_what_quic_takes_its_path_for() {
        let mut stats = quic::ConnectionStats::default();
        stats.path.cwnd = 125_000;
        stats.path.rtt = Duration::from_millis(20);
        stats.udp_tx.bytes = EVIDENCE_BYTES_MIN - 1;
        assert_eq!(of_quic(&stats), Estimate { rtt: Duration::from_millis(20), bits_per_second: None }, "too early to tell");
        stats.udp_tx.bytes += 1;
        assert_eq!(of_quic(&stats).bits_per_second, Some(50_000_000));
        stats.path.rtt = Duration::ZERO;
        assert_eq!(of_quic(&stats).bits_per_second, None);
    }

    #[test]
    fn what_tcp_delivers_counts_unless_there_was_too_little_to_send() {
        let whole = Info {
            rtt: Duration::from_millis(20),
            window_bytes: 125_000,
            bytes_acked: EVIDENCE_BYTES_MIN,
            delivery_rate: 1_000_000,
            is_app_limited: false,
        };
        let carries = |info| of_tcp(&info).bits_per_second;
        assert_eq!(carries(whole), Some(8_000_000));
        assert_eq!(carries(Info { is_app_limited: true, ..whole }), Some(50_000_000));
        assert_eq!(carries(Info { is_app_limited: true, delivery_rate: 10_000_000, ..whole }), Some(80_000_000));
        assert_eq!(carries(Info { delivery_rate: 0, ..whole }), Some(50_000_000));
        assert_eq!(carries(Info { bytes_acked: EVIDENCE_BYTES_MIN - 1, ..whole }), None);
    }

    #[tokio::test]
    async fn tcp_tells_what_it_carries_until_its_socket_is_closed() {
        let (mut ours, mut theirs) = pair().await;
        let tcp = Tcp::new(&ours);
        let link = Link::Tcp(tcp.clone());
        let first = link.estimate().expect("it is connected");
        assert_eq!(first.bits_per_second, None, "nothing was sent");
        let sent = vec![7; 1 << 20];
        let (written, read) = tokio::join!(ours.write_all(&sent), async {
            let mut read = vec![0; 1 << 20];
            theirs.read_exact(&mut read).await
        });
        written.and(read.map(drop)).expect("no error");
        assert_eq!(tcp.estimate(quic::now()), Some(first), "it is not asked again at once");
        // The last acknowledgement may still be on its way.
        let told = async {
            loop {
                let later = quic::now() + TCP_ACCOUNT_AGE_MAX;
                tcp.0.lock().read = None;
                if let Some(Estimate { bits_per_second: Some(rate), rtt }) = tcp.estimate(later) {
                    return (rate, rtt);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let (rate, rtt) = tokio::time::timeout(Duration::from_secs(30), told).await.expect("the kernel tells");
        assert!(rate > 0 && rtt > Duration::ZERO, "{rate} {rtt:?}");
        tcp.closes();
        tcp.0.lock().read = None;
        assert_eq!(link.estimate(), None);
    }

    #[tokio::test]
    async fn a_socket_gets_its_options() {
        let (ours, _theirs) = pair().await;
        tune(&ours, &Limits { connection_bits_per_second_max: Some(8_000_000), ..Limits::default() });
        assert!(ours.nodelay().expect("told"));
        assert_eq!(SockRef::from(&ours).tcp_notsent_lowat().expect("told"), NOTSENT_BYTES_MAX);
        let (mut rate, mut length) = (0_u64, size_of::<u64>() as libc::socklen_t);
        // SAFETY: the system writes at most `length` bytes to a place that is ours.
        let outcome = unsafe {
            libc::getsockopt(
                ours.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MAX_PACING_RATE,
                (&raw mut rate).cast(),
                &raw mut length,
            )
        };
        assert_eq!((outcome, rate), (0, 1_000_000));
    }
}
