//! A film for trying things out: made by ffmpeg's own test sources, so that nothing has to be fetched.

use std::path::Path;

use crate::{
    ToolError,
    package::{Arguments, Tools},
};

/// Makes an MP4 file of `seconds` seconds at `path`, whose folder exists: a moving test pattern with the running time in it,
/// and a tone with a beep every second. The file is whole or not there.
pub async fn demo_clip(path: &Path, seconds: u32) -> Result<(), ToolError> {
    let io_error = |reason| ToolError::Run { tool: "ffmpeg".into(), reason };
    let path = std::path::absolute(path).map_err(io_error)?;
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io_error(std::io::ErrorKind::InvalidFilename.into()));
    };
    let mut part = name.to_owned();
    part.push(".part");
    let part = folder.join(part);
    let mut output = std::ffi::OsString::from("file:");
    output.push(&part);
    let arguments = Arguments::default()
        .words("-hide_banner -nostdin -y -loglevel error")
        .words(&format!("-f lavfi -i testsrc2=size=640x360:rate=25:duration={seconds}"))
        .words(&format!("-f lavfi -i sine=frequency=220:beep_factor=4:sample_rate=48000:duration={seconds}"))
        .words("-c:v libx264 -preset ultrafast -crf 18 -pix_fmt yuv420p -c:a aac -movflags +faststart -f mp4")
        .word(output);
    let made = Tools::default().ffmpeg.lines(arguments, folder, |_| ()).await;
    match made.and_then(|()| std::fs::rename(&part, &path).map_err(io_error)) {
        Ok(()) => Ok(()),
        Err(error) => {
            let _ = std::fs::remove_file(&part);
            Err(error)
        }
    }
}
