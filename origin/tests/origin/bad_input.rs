//! Each file that cannot be a title is refused in one sentence that names it and says why, and leaves nothing behind.

use std::{fs, path::Path};

use origin::store::FileStore;

use crate::support::{assert_nothing_left, ffmpeg, film, ingest_file};

const NO_INDEX: &str = "it is cut off: its index (the moov box) is not there or not complete";

async fn refusal(name: &str, write: impl AsyncFnOnce(&Path)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let (input, state) = (folder.path().join(name), folder.path().join("state"));
    write(&input).await;
    let store = FileStore::open(&state).unwrap();
    let error = ingest_file(&store, &input).await.expect_err(name).to_string();
    assert_nothing_left(&state);
    let named = format!("cannot package {}: ", input.display());
    assert!(error.starts_with(&named) && !error.contains('\n'), "{error}");
    error[named.len()..].to_owned()
}

#[tokio::test]
async fn text_is_not_a_video() {
    let text = async |input: &Path| fs::write(input, "A text, and no film.\n".repeat(100)).unwrap();
    for name in ["film.mp4", "film.txt", "film.mkv", "film"] {
        let error = refusal(name, text).await;
        assert!(error.starts_with("it is not a video that ffprobe can read: "), "{name}: {error}");
        let said = ["moov atom not found; Invalid data found", "Invalid data found", "it is of another kind, such as text"];
        assert!(said.iter().any(|said| error.contains(said)), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_playlist_does_not_open_what_it_names() {
    let error = refusal("list.m3u8", async |input: &Path| {
        let film = &film().await.source;
        fs::write(input, format!("#EXTM3U\n#EXTINF:10,\nfile:{}\n#EXT-X-ENDLIST\n", film.display())).unwrap();
    });
    let error = error.await;
    assert!(error.starts_with("it is not a video that ffprobe can read: "), "{error}");
}

#[tokio::test]
async fn pictures_and_sound_alone_are_no_film() {
    let error = refusal("photo.jpg", async |input: &Path| ffmpeg("-f lavfi -i testsrc2=s=64x64 -frames:v 1", input)).await;
    assert!(error.starts_with("it is not a video that ffprobe can read: "), "{error}");
    let error = refusal("song.m4a", async |input: &Path| ffmpeg("-f lavfi -i sine=d=1 -c:a aac", input)).await;
    assert_eq!(error, "it has no moving picture, only audio (aac)");
}

#[tokio::test]
async fn a_film_without_its_end_is_cut_off() {
    let film = fs::read(&film().await.source).unwrap();
    // The index is in front: everything is announced, and half of it is there.
    let error = refusal("half.mp4", async |input: &Path| fs::write(input, &film[..film.len() / 2]).unwrap()).await;
    assert!(error.starts_with("it is cut off: it announces 10.0 s, and only "), "{error}");
    assert!(error.ends_with(" s of it can be decoded"), "{error}");
    // The index is at the end, and gone.
    let error = refusal("tail.mp4", async |input: &Path| {
        ffmpeg("-f lavfi -i testsrc2=s=64x64:d=2 -c:v libx264", input);
        let whole = fs::read(input).unwrap();
        fs::write(input, &whole[..whole.len() - 100]).unwrap();
    });
    assert_eq!(error.await, NO_INDEX);
    let error = refusal("head.mp4", async |input: &Path| {
        ffmpeg("-f lavfi -i testsrc2=s=64x64:d=2 -c:v libx264", input);
        let whole = fs::read(input).unwrap();
        fs::write(input, &whole[..whole.len() / 2]).unwrap();
    });
    assert_eq!(error.await, NO_INDEX);
}

#[tokio::test]
async fn what_is_no_file_is_named() {
    assert_eq!(
        refusal("empty.mp4", async |input: &Path| fs::write(input, "").unwrap()).await,
        "it is not a video that ffprobe can read: it is empty"
    );
    let error = refusal("folder.mp4", async |input: &Path| fs::create_dir(input).unwrap()).await;
    assert!(error.ends_with("folder.mp4: it is not a file"), "{error}");
    let error = refusal("none.mp4", async |_: &Path| ()).await;
    assert!(error.ends_with("none.mp4: No such file or directory (os error 2)"), "{error}");
}
