//! Runs ffmpeg and ffprobe as child processes: what they print is bounded, and they die with the future that waits for them.
//!
//! A file's name is never interpreted: it is passed as an absolute path behind `file:`, and no protocol but `file` is
//! allowed, so that neither "-i.mp4" nor "concat:…" nor a playlist inside a file makes them open anything else.

use std::{
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    process::Command,
};

/// What a child may print on its standard output as a whole ([`Tool::output`]).
const STDOUT_BYTES_MAX: u64 = 8 << 20;
/// How much of the end of a child's standard error is kept.
const STDERR_BYTES_KEPT: usize = 8 << 10;
/// How many of its last messages make up a reason.
const REASON_LINES: usize = 2;

/// The programs that do the work.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    pub(crate) ffmpeg: Tool,
    pub(crate) ffprobe: Tool,
}

impl Default for Tools {
    /// The ones on `PATH`.
    fn default() -> Self {
        Self { ffmpeg: Tool(PathBuf::from("ffmpeg")), ffprobe: Tool(PathBuf::from("ffprobe")) }
    }
}

/// A program, by name (searched on `PATH`) or by path.
#[derive(Debug, Clone)]
pub(crate) struct Tool(pub(crate) PathBuf);

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not installed.
    #[error("{0} is not installed or not on PATH: install it with `apt-get install ffmpeg`")]
    Missing(String),
    /// The system would not start it or lost it.
    #[error("cannot run {tool}: {reason}")]
    Run { tool: String, reason: io::Error },
    /// Somebody or the kernel ended it.
    #[error("{tool} was killed by signal {signal} (9 is often the kernel, out of memory)")]
    Killed { tool: String, signal: i32 },
    /// It says no; this is what it printed.
    #[error("{tool}: {reason}")]
    Failed { tool: String, reason: String },
}

impl Tool {
    /// Runs it to its end and returns what it printed.
    pub(crate) async fn output(&self, arguments: Arguments) -> Result<Vec<u8>, ToolError> {
        let mut output = Vec::new();
        self.run(arguments, None, async |stdout| {
            stdout.take(STDOUT_BYTES_MAX).read_to_end(&mut output).await?;
            Ok(())
        })
        .await?;
        Ok(output)
    }

    /// Runs it to its end in `directory`, and calls `line` with each line that it prints.
    pub(crate) async fn lines(
        &self,
        arguments: Arguments,
        directory: &Path,
        mut line: impl FnMut(&str),
    ) -> Result<(), ToolError> {
        self.run(arguments, Some(directory), async |stdout| {
            let mut lines = BufReader::new(stdout).lines();
            while let Some(text) = lines.next_line().await? {
                line(&text);
            }
            Ok(())
        })
        .await
    }

    async fn run<'a>(
        &self,
        arguments: Arguments,
        directory: Option<&Path>,
        read: impl AsyncFnOnce(tokio::process::ChildStdout) -> io::Result<()> + 'a,
    ) -> Result<(), ToolError> {
        let failed = |reason: io::Error| ToolError::Run { tool: self.name(), reason };
        let mut command = Command::new(&self.0);
        command.args(arguments.0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        if let Some(directory) = directory {
            command.current_dir(directory);
        }
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ToolError::Missing(self.name()),
            _ => failed(error),
        })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return Err(failed(io::Error::other("its output is not a pipe")));
        };
        let (read, printed, status) = tokio::join!(read(stdout), tail(stderr), child.wait());
        let (status, printed) = (status.map_err(failed)?, printed.map_err(failed)?);
        read.map_err(failed)?;
        if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
            return Err(ToolError::Killed { tool: self.name(), signal });
        }
        if !status.success() {
            let reason = reason(&printed).unwrap_or_else(|| format!("failed without a word ({status})"));
            return Err(ToolError::Failed { tool: self.name(), reason });
        }
        if !printed.is_empty() {
            tracing::debug!(tool = self.name(), printed = reason(&printed), "complaints");
        }
        Ok(())
    }

    fn name(&self) -> String {
        self.0.display().to_string()
    }
}

/// Arguments in the making.
#[derive(Debug, Default)]
pub(crate) struct Arguments(Vec<OsString>);

impl Arguments {
    /// Arguments that hold no spaces, separated by spaces.
    pub(crate) fn words(mut self, words: &str) -> Self {
        self.0.extend(words.split_whitespace().map(OsString::from));
        self
    }

    /// One argument, as it is.
    pub(crate) fn word(mut self, word: impl AsRef<OsStr>) -> Self {
        self.0.push(word.as_ref().to_owned());
        self
    }

    /// A file to be read, safe whatever its name; `path` must be absolute.
    pub(crate) fn input(self, path: &Path) -> Self {
        let mut url = OsString::from("file:");
        url.push(path);
        self.words("-protocol_whitelist file,pipe -i").word(url)
    }
}

/// The end of a stream, read to its end.
async fn tail(mut stream: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut kept = Vec::with_capacity(2 * STDERR_BYTES_KEPT);
    loop {
        if kept.len() >= 2 * STDERR_BYTES_KEPT {
            kept.drain(..kept.len() - STDERR_BYTES_KEPT);
        }
        let room = (2 * STDERR_BYTES_KEPT - kept.len()) as u64;
        if (&mut stream).take(room).read_buf(&mut kept).await? == 0 {
            return Ok(kept);
        }
    }
}

/// The last different messages in what a program printed, as one line, without the parts that name a piece of its memory
/// ("[mov,mp4 @ 0x55…]") or repeat the file's name.
fn reason(printed: &[u8]) -> Option<String> {
    let printed = String::from_utf8_lossy(printed);
    let mut messages: Vec<&str> = Vec::new();
    for line in printed.lines().rev().map(message).filter(|line| !line.is_empty()) {
        if messages.len() < REASON_LINES && !messages.contains(&line) {
            messages.push(line);
        }
    }
    messages.reverse();
    (!messages.is_empty()).then(|| messages.join("; "))
}

fn message(line: &str) -> &str {
    let mut line = line.trim();
    while let Some((_, rest)) = line.strip_prefix('[').filter(|rest| rest.contains(" @ 0x")).and_then(|rest| rest.split_once(']'))
    {
        line = rest.trim();
    }
    if line.starts_with("file:")
        && let Some((_, rest)) = line.rsplit_once(": ")
    {
        line = rest;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> (Tool, Arguments) {
        (Tool(PathBuf::from("sh")), Arguments::default().word("-c").word(script))
    }

    #[test]
    fn a_reason_is_one_clean_line() {
        let printed = b"noise\n[mov,mp4 @ 0x5654] [x @ 0x1] moov atom not found\nfile:/a: b/c.mp4: Invalid data found\n\n";
        assert_eq!(reason(printed).unwrap(), "moov atom not found; Invalid data found");
        assert_eq!(reason(b" \n"), None);
    }

    #[tokio::test]
    async fn a_flood_on_stderr_is_bounded_and_its_end_is_the_reason() {
        let (tool, arguments) = sh("yes complaint | head -c 3000000 >&2; echo the end >&2; exit 3");
        let error = tool.output(arguments).await.unwrap_err();
        assert_eq!(error.to_string(), "sh: complaint; the end");
    }

    #[tokio::test]
    async fn a_killed_program_is_named_with_its_signal() {
        let (tool, arguments) = sh("kill -9 $$");
        let error = tool.lines(arguments, Path::new("/"), |_| ()).await.unwrap_err();
        assert!(matches!(&error, ToolError::Killed { signal: 9, .. }), "{error}");
        assert!(error.to_string().starts_with("sh was killed by signal 9"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_program_says_how_to_get_it() {
        let error = Tool(PathBuf::from("/nowhere/ffprobe")).output(Arguments::default()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "/nowhere/ffprobe is not installed or not on PATH: install it with `apt-get install ffmpeg`"
        );
    }

    #[tokio::test]
    async fn a_dropped_wait_kills_the_program() {
        let mut pid = String::new();
        {
            let (tool, arguments) = sh("echo $$; exec sleep 600");
            let (send, receive) = tokio::sync::oneshot::channel();
            let mut send = Some(send);
            let wait = tool.lines(arguments, Path::new("/"), |line| {
                pid = line.to_owned();
                let _ = send.take().map(|send| send.send(()));
            });
            tokio::select! {
                _ = wait => panic!("sleep ended by itself"),
                _ = receive => {}
            }
        }
        let ended = || !std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        while !ended() {
            tokio::task::yield_now().await;
        }
    }
}
