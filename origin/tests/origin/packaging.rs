use std::{fs, process::Command};

use origin::{
    demo_clip,
    ingest::{Progress, Step, ingest},
    store::{FileStore, content_digest},
};
use wire::{
    object::Digest,
    title::{Media, Rendition},
};

use crate::support::{Film, assert_nothing_left, ffmpeg, ffprobe, film, ingest_file, request};

fn video(film: &Film) -> Vec<&Rendition> {
    film.title.renditions.iter().filter(|rendition| matches!(rendition.media, Media::Video { .. })).collect()
}

#[tokio::test]
async fn a_film_gets_three_pictures_sizes_and_every_language() {
    let film = film().await;
    let described: Vec<_> = film.title.renditions.iter().map(|rendition| (rendition.id.as_str(), &rendition.media)).collect();
    let frame_rate = 30_000.0 / 1001.0;
    let sound = |language: &str| Media::Audio { channels: 1, sample_rate: 48_000, language: language.into() };
    assert_eq!(
        described,
        [
            ("v180", &Media::Video { width: 320, height: 180, frame_rate }),
            ("v144", &Media::Video { width: 256, height: 144, frame_rate }),
            ("v108", &Media::Video { width: 192, height: 108, frame_rate }),
            ("a1", &sound("en")),
            ("a2", &sound("de")),
        ]
    );
    for rendition in &film.title.renditions {
        let kind = if rendition.id.starts_with('v') { "avc1.64" } else { "mp4a.40.2" };
        assert!(rendition.codecs.starts_with(kind), "{rendition:?}");
        assert!(rendition.bits_per_second_mean > 0 && rendition.bits_per_second_mean <= rendition.bits_per_second_peak);
    }
    assert!(film.title.duration_ms.abs_diff(10_000) < 50, "{}", film.title.duration_ms);
    assert_eq!(film.title.id.as_str(), format!("a-film-{}", &film.title.fingerprint.to_string()[..8]));
    assert_eq!(film.title.fingerprint, Digest::of(&fs::read(&film.source).unwrap()));
}

#[tokio::test]
async fn every_object_is_named_by_its_digest() {
    let film = film().await;
    assert_eq!(film.title.root.as_str(), format!("/titles/{}", content_digest(&film.title.objects)));
    for object in &film.title.objects {
        let bytes = film.read(&object.path);
        assert_eq!((Digest::of(&bytes), bytes.len() as u64), (object.digest, object.bytes), "{}", object.path);
    }
    assert_eq!(film.store.verify(content_digest(&film.title.objects)).await.unwrap(), [""; 0]);
    let known = |path: &str| assert!(film.title.objects.iter().any(|object| object.path == path), "{path}");
    [&film.title.hls, &film.title.dash, &film.title.poster, &film.title.storyboard].into_iter().for_each(|path| known(path));
    for rendition in &film.title.renditions {
        known(&rendition.init);
        known(&rendition.playlist);
        rendition.segments.iter().for_each(|segment| known(&segment.path));
    }
    assert!(film.title.objects.is_sorted_by_key(|object| &object.path));
}

#[tokio::test]
async fn segments_begin_every_four_seconds_in_all_renditions_alike() {
    let film = film().await;
    let times = |rendition: &Rendition| -> Vec<_> { rendition.segments.iter().map(|s| (s.start_ms, s.duration_ms)).collect() };
    let video = video(film);
    assert_eq!(times(video[0]), [(0, 4004), (4004, 4004), (8008, 2002)]);
    assert!(video.iter().all(|rendition| times(rendition) == times(video[0])));
    for rendition in film.title.renditions.iter().filter(|rendition| rendition.id.starts_with('a')) {
        assert_eq!(rendition.segments.len(), 3, "{rendition:?}");
        for (n, segment) in rendition.segments.iter().enumerate() {
            assert!((0..22).contains(&(segment.start_ms as i64 - 4000 * n as i64)), "{segment:?}");
        }
    }
}

/// Each segment is decoded without any other, and without a complaint: its group of pictures is closed.
#[tokio::test]
async fn every_segment_plays_alone() {
    let film = film().await;
    let folder = tempfile::tempdir().unwrap();
    let alone = folder.path().join("alone.mp4");
    for rendition in &film.title.renditions {
        for segment in &rendition.segments {
            fs::write(&alone, [film.read(&rendition.init), film.read(&segment.path)].concat()).unwrap();
            let frames = ffprobe("-count_frames -show_entries stream=nb_read_frames -of csv=p=0", &alone);
            let frames: f64 = frames.trim().parse().unwrap();
            let seconds = segment.duration_ms as f64 / 1000.0;
            match &rendition.media {
                Media::Video { frame_rate, .. } => assert_eq!(frames, (seconds * frame_rate).round(), "{}", segment.path),
                // The last one is not full.
                Media::Audio { .. } => assert!((frames - seconds * 48_000.0 / 1024.0).abs() < 1.0, "{}: {frames}", segment.path),
            }
        }
    }
}

#[tokio::test]
async fn foreign_players_understand_both_manifests() {
    let film = film().await;
    for manifest in [&film.title.hls, &film.title.dash] {
        let file = film.folder().join(manifest);
        let streams = ffprobe("-show_entries stream=codec_name,width -of csv=p=0", &file);
        let count = |what: &str| streams.lines().filter(|line| line.starts_with(what)).count();
        assert!(count("h264,320") >= 1 && count("h264,256") >= 1 && count("h264,192") >= 1, "{manifest}: {streams}");
        assert!(count("aac") >= 2, "{manifest}: {streams}");
        // All frames of the best rendition: 10 s at 29.97.
        let frames = ffprobe("-select_streams v:0 -count_packets -show_entries stream=nb_read_packets -of csv=p=0", &file);
        assert_eq!(frames.lines().next().map(str::trim), Some("300"), "{manifest}");
        let duration = ffprobe("-show_entries format=duration -of csv=p=0", &file);
        assert!((duration.trim().parse::<f64>().unwrap() - 10.0).abs() < 0.1, "{manifest}: {duration}");
    }
}

/// The sound's beeps and the picture's flashes come in the same moments, to the frame.
#[tokio::test]
async fn sound_and_picture_are_together() {
    let film = tempfile::tempdir().unwrap();
    let source = film.path().join("flash.mkv");
    ffmpeg(
        "-f lavfi -i color=black:s=64x64:r=25:d=6,drawbox=c=white:t=fill:enable='between(t,4.99,5.19)' \
         -f lavfi -i sine=f=1000:d=6:r=48000,asetnsamples=480,volume=0:enable='lt(t,5)' -c:v ffv1 -c:a pcm_s16le",
        &source,
    );
    let store = FileStore::open(film.path()).unwrap();
    let title = ingest_file(&store, &source).await.unwrap();
    let folder = film.path().join(title.root.relative());
    let decoded = |rendition: &Rendition, words: &str| {
        let whole = film.path().join("whole.mp4");
        let parts = rendition.segments.iter().map(|segment| &segment.path);
        let bytes: Vec<_> =
            std::iter::once(&rendition.init).chain(parts).map(|path| fs::read(folder.join(path)).unwrap()).collect();
        fs::write(&whole, bytes.concat()).unwrap();
        let out = Command::new("ffmpeg").args(["-v", "error", "-i"]).arg(&whole).args(words.split_whitespace()).arg("-").output();
        out.unwrap().stdout
    };
    let picture = decoded(&title.renditions[0], "-f rawvideo -pix_fmt gray");
    let flash_s = picture.chunks(64 * 64).position(|frame| frame[2000] > 128).unwrap() as f64 / 25.0;
    let sound = decoded(title.renditions.last().unwrap(), "-f s16le -ar 48000");
    let samples = sound.chunks(2).map(|sample| i16::from_le_bytes([sample[0], sample[1]]));
    let beep_s = samples.enumerate().find(|(_, sample)| sample.unsigned_abs() > 1000).unwrap().0 as f64 / 48_000.0;
    assert_eq!(flash_s, 5.0);
    assert!((beep_s - 5.0).abs() < 0.002, "{beep_s}");
    assert_eq!(title.duration_ms, 6000);
}

#[tokio::test]
async fn a_storyboard_points_into_its_sprite() {
    let film = film().await;
    let size = |name: &str| ffprobe("-show_entries stream=codec_name,width,height -of csv=p=0", &film.folder().join(name));
    assert_eq!(size("poster.jpg").trim(), "mjpeg,320,180");
    assert_eq!(size("storyboard.jpg").trim(), "mjpeg,480,90");
    assert_eq!(
        String::from_utf8(film.read("storyboard.vtt")).unwrap(),
        "WEBVTT\n\n00:00:00.000 --> 00:00:04.004\nstoryboard.jpg#xywh=0,0,160,90\n\n\
         00:00:04.004 --> 00:00:08.008\nstoryboard.jpg#xywh=160,0,160,90\n\n\
         00:00:08.008 --> 00:00:10.010\nstoryboard.jpg#xywh=320,0,160,90\n"
    );
}

fn can_be_spawned<F: Future + Send>(future: F) -> F {
    future
}

#[tokio::test]
async fn the_same_film_is_not_packaged_twice() {
    let film = film().await;
    let mut steps = Vec::new();
    let mut again = request(&film.source);
    (again.title, again.id) = ("Another name".into(), Some("chosen".parse().unwrap()));
    let mut report = |progress: Progress| steps.push(progress.step);
    let ingesting = ingest(&film.store, again, &mut report);
    let title = can_be_spawned(ingesting).await.unwrap();
    assert!(!steps.contains(&Step::Packaging), "{steps:?}");
    assert_eq!((title.id.as_str(), title.title.as_str()), ("chosen", "Another name"));
    assert_eq!((title.root, title.objects), (film.title.root.clone(), film.title.objects.clone()));
}

/// A silent portrait with odd sides and frames of uneven length, in a file whose name begins like an option and goes on
/// like an address.
#[tokio::test]
async fn odd_sources_work_and_names_are_only_names() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("-i concat:http:%05d|x.mkv");
    ffmpeg(
        "-f lavfi -i testsrc2=s=181x321:r=24000/1001:d=5,select='not(eq(mod(n,3),1))' -vsync vfr -c:v ffv1 -pix_fmt yuv444p",
        &source,
    );
    let store = FileStore::open(&folder.path().join("state")).unwrap();
    let mut furthest = 0.0f64;
    let mut report = |progress: Progress| {
        if progress.step == Step::Packaging {
            furthest = furthest.max(progress.done.unwrap_or(0.0));
        }
    };
    let title = ingest(&store, request(&source), &mut report).await.unwrap();
    assert!(furthest > 0.9, "{furthest}");
    let sizes: Vec<_> = title
        .renditions
        .iter()
        .map(|rendition| match rendition.media {
            Media::Video { width, height, .. } => (width, height),
            Media::Audio { .. } => panic!("there is no sound in it"),
        })
        .collect();
    assert_eq!(sizes, [(180, 320), (144, 256), (108, 192)]);
    let starts: Vec<_> = title.renditions[0].segments.iter().map(|segment| segment.start_ms).collect();
    assert_eq!(starts.len(), 2, "{starts:?}");
    assert!((4000..4100).contains(&starts[1]), "{starts:?}");
    let playlist = fs::read_to_string(folder.path().join("state").join(title.root.relative()).join("master.m3u8")).unwrap();
    assert!(!playlist.contains("AUDIO"), "{playlist}");
}

#[tokio::test]
async fn an_ingest_that_is_dropped_leaves_nothing() {
    let film = film().await;
    let state = tempfile::tempdir().unwrap();
    let store = FileStore::open(state.path()).unwrap();
    let (send, receive) = tokio::sync::oneshot::channel();
    let mut send = Some(send);
    let mut at_work = |progress: Progress| {
        if progress.done.is_some() && progress.step == Step::Packaging {
            let _ = send.take().map(|send| send.send(()));
        }
    };
    tokio::select! {
        title = ingest(&store, request(&film.source), &mut at_work) => panic!("{title:?}"),
        _ = receive => {}
    }
    // ffmpeg was killed, and may have put one more file there before it died: opening the store cleans up.
    FileStore::open(state.path()).unwrap();
    assert_nothing_left(state.path());
}

#[tokio::test]
async fn a_demo_clip_is_a_film_with_sound() {
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("clip.mp4");
    demo_clip(&clip, 2).await.unwrap();
    let streams = ffprobe("-show_entries stream=codec_name,duration -of csv=p=0", &clip);
    assert_eq!(streams, "h264,2.000000\naac,2.000000\n");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let error = demo_clip(&folder.path().join("none/clip.mp4"), 1).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot run ffmpeg: ") || error.to_string().contains("ffmpeg"), "{error}");
}
