//! One run of ffmpeg makes all renditions of a source: it is decoded once, and each rendition goes into its own folder as
//! an initialisation segment and numbered media segments.
//!
//! All renditions begin at time zero (a late picture is preceded by its first frame, late sound by silence), have a
//! constant frame rate, and begin a segment with the first frame or sound sample at or after each multiple of
//! [`SEGMENT_S`]. There are no edit lists: composition offsets are signed (`movflags=+cmaf`), and the sound's first 1024
//! samples make room for the AAC encoder's delay, so that decoding times are presentation times to the sample.

use std::{fmt::Write as _, path::Path};

use super::{
    INIT, PLAYLIST, SEGMENT_S,
    ladder::Rung,
    probe::{AudioTrack, Source},
    tool::{Arguments, Tool, ToolError},
};

/// Samples that the AAC encoder puts in front of the sound.
const AAC_DELAY_SAMPLES: u32 = 1024;
pub(crate) const SAMPLE_RATE: u32 = 48_000;
const AUDIO_BITS_PER_CHANNEL: u32 = 64_000;

/// Makes the renditions of `input` (absolute) in folders of `directory`, which exist. `progress` gets the seconds done.
pub(crate) async fn encode(
    ffmpeg: &Tool,
    input: &Path,
    source: &Source,
    rungs: &[Rung],
    directory: &Path,
    mut progress: impl FnMut(f64),
) -> Result<(), ToolError> {
    ffmpeg
        .lines(arguments(input, source, rungs), directory, |line| {
            let done = line.strip_prefix("out_time_us=").and_then(|us| us.parse::<f64>().ok());
            if let Some(us) = done.filter(|us| *us > 0.0) {
                progress(us / 1e6);
            }
        })
        .await
}

/// The folder of the `n`th audio track, counted from zero.
pub(crate) fn audio_id(n: usize) -> String {
    format!("a{}", n + 1)
}

fn arguments(input: &Path, source: &Source, rungs: &[Rung]) -> Arguments {
    let mut arguments = Arguments::default()
        .words("-hide_banner -nostdin -y -loglevel error -progress pipe:1")
        .input(input)
        .word("-filter_complex")
        .word(filters(source, rungs));
    for (n, rung) in rungs.iter().enumerate() {
        arguments = segments(video(arguments, n, rung), &rung.id);
    }
    for (n, track) in source.audio.iter().enumerate() {
        arguments = segments(audio(arguments, n, track), &audio_id(n));
    }
    arguments
}

fn filters(source: &Source, rungs: &[Rung]) -> String {
    let video = &source.video;
    let mut graph = format!("[0:{}]", video.index);
    if video.interlaced {
        graph.push_str("yadif,");
    }
    let _ = write!(graph, "fps={}:start_time=0,split={}", video.rate, rungs.len());
    (0..rungs.len()).for_each(|n| {
        let _ = write!(graph, "[s{n}]");
    });
    for (n, Rung { width, height, .. }) in rungs.iter().enumerate() {
        let _ = write!(graph, ";[s{n}]scale={width}:{height}:flags=bicubic,setsar=1,format=yuv420p[v{n}]");
    }
    for (n, track) in source.audio.iter().enumerate() {
        let _ = write!(
            graph,
            ";[0:{}]aresample={SAMPLE_RATE}:async=1:first_pts=0,atrim=start_sample={AAC_DELAY_SAMPLES},asetpts=PTS-STARTPTS[a{n}]",
            track.index
        );
    }
    graph
}

fn video(arguments: Arguments, n: usize, rung: &Rung) -> Arguments {
    let Rung { quality, bits_per_second_max: bits, .. } = rung;
    arguments
        .words(&format!(
            "-map [v{n}] -c:v libx264 -preset veryfast -crf {quality} -maxrate {bits} -bufsize {}",
            2 * u64::from(*bits)
        ))
        // A microsecond makes up for rounding of times that are whole seconds; no frame rate has frames that close.
        .words(&format!("-force_key_frames expr:gte(t+0.000001,n_forced*{SEGMENT_S})"))
        .words("-forced-idr 1 -sc_threshold 0 -g 100000 -x264-params open-gop=0")
}

fn audio(arguments: Arguments, n: usize, track: &AudioTrack) -> Arguments {
    let (channels, language) = (track.channels, &track.language);
    arguments
        .words(&format!("-map [a{n}] -c:a aac -ac {channels} -b:a {}", AUDIO_BITS_PER_CHANNEL * channels))
        .words(&format!("-metadata:s:0 language={language}"))
}

/// What a source says of itself (where and by whom it was taken) is not published. The playlist that ffmpeg writes is
/// replaced later.
fn segments(arguments: Arguments, id: &str) -> Arguments {
    arguments
        .words("-map_metadata -1 -map_chapters -1 -f hls -hls_playlist_type vod -hls_list_size 0 -start_number 1")
        .words(&format!("-hls_time {SEGMENT_S} -hls_segment_type fmp4 -hls_segment_options movflags=+cmaf"))
        .words(&format!("-hls_fmp4_init_filename {INIT} -hls_segment_filename {id}/%05d.m4s {id}/{PLAYLIST}"))
}
