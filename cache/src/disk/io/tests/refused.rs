//! Where the system refuses io_uring, or memory for it.

use std::thread;

use super::*;

#[tokio::test]
async fn blocks_are_registered_once_and_let_go_when_they_are_gone() {
    let bench = Bench::by_ring(true);
    if !rings_work() {
        return;
    }
    let device = bench.device("device", RECORD);
    let ring = rings::ring(bench.io.shared()).await.expect("rings work");
    for _ in 0..3 {
        let held: Vec<_> = futures_util::future::join_all((0..8).map(|_| bench.writer(SLICE))).await;
        let (slabs, bufs): (Vec<_>, Vec<_>) = held.into_iter().unzip();
        let reads = bufs.into_iter().map(|buf| bench.io.read(&device, 0, buf));
        assert!(soon(futures_util::future::join_all(reads)).await.iter().all(Result::is_ok));
        drop(slabs);
        assert_eq!(ring.registered(), 8, "the same eight again");
    }
    let small = futures_util::future::join_all((0..500).map(|_| bench.writer(100))).await;
    soon(bench.io.read(&device, 0, IoBuf::zeroed(4096))).await.expect("within");
    assert!(ring.registered() < 8, "what has no block any more is let go");
    drop(small);
}

/// Runs `test` on a thread to which io_uring is forbidden, as containers do it.
fn where_it_is_forbidden(test: impl FnOnce() + Send) {
    let load = |at| libc::sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: at };
    let unless = |k, jf| libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt: 0, jf, k };
    let answer = |k| libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k };
    let setup = u32::try_from(libc::SYS_io_uring_setup).expect("a small number");
    let refusal = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let mut filter = [load(0), unless(setup, 1), answer(refusal), answer(libc::SECCOMP_RET_ALLOW)];
    thread::scope(|scope| {
        scope.spawn(|| {
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
            // SAFETY: the program outlives the call, and the kernel checks it.
            unsafe {
                assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
                assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
            }
            test();
        });
    });
}

#[test]
fn where_io_uring_is_refused_threads_do_the_same() {
    let permitted = Bench::by_ring(true);
    where_it_is_forbidden(|| {
        let bench = Bench::by_ring(true);
        assert_eq!(bench.io.name(), "threads");
        current_thread().block_on(both::what_is_written_is_read_at_any_place_and_length(bench));
        // For this one it was permitted where it was opened, but is not on this thread.
        current_thread().block_on(async {
            assert!(rings::ring(permitted.io.shared()).await.is_none());
            let device = permitted.device("device", RECORD);
            let buf = soon(permitted.io.read(&device, 0, IoBuf::zeroed(RECORD))).await.expect("within");
            assert!(buf.as_slice() == pattern("device", 0, RECORD));
        });
    });
}

/// Takes from this thread what lets it lock more memory than RLIMIT_MEMLOCK says.
fn give_up_privileges() {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let header = Header { version: 0x2008_0522, pid: 0 };
    let none = [0_u32; 6];
    // SAFETY: the kernel reads a header and, in version 3, two sets of three words.
    assert_eq!(unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) }, 0);
}

fn lockable_bytes() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: there is room for the limit.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) }, 0);
    limit.rlim_cur
}

#[test]
fn memory_that_must_not_be_locked_is_read_into_nevertheless() {
    const BLOCK: usize = 4 << 20;
    const BLOCKS: u64 = 20;
    if !rings_work() || lockable_bytes() >= BLOCKS * BLOCK as u64 {
        return;
    }
    let dir = TempDir::new().expect("a directory");
    let budget = Arc::new(Budget::new(BLOCKS * (BLOCK + HEAD_BYTES) as u64, BLOCK));
    let bench = Bench { io: Io::new(IoChoice::Auto, budget.slots().clone()), budget, dir };
    let device = bench.device("device", BLOCK + 2 * HEAD_BYTES);
    thread::scope(|scope| {
        scope.spawn(|| {
            give_up_privileges();
            current_thread().block_on(async {
                let mut held = Vec::new();
                for _ in 0..BLOCKS {
                    let permit = bench.budget.acquire(BLOCK, Priority::Viewer, LONG).await.expect("there is room for all");
                    let (slab, writer) = Slab::new(permit, BLOCK);
                    let buf = soon(bench.io.read(&device, 4096, writer.into_io())).await.expect("within");
                    assert!(buf.as_slice()[..8192] == pattern("device", 4096, 8192));
                    held.push((slab, buf));
                }
                let ring = rings::ring(bench.io.shared()).await.expect("rings work");
                assert!(ring.registered() < held.len(), "the limit was met");
            });
        });
    });
}
