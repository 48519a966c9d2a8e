//! Files of moving pictures and pictures of sound, read by other code.

use aigc_core::{
    data::{
        Dataset, SampleBatch, digits,
        moving_digits::{MovingDigits, MovingDigitsConfig},
        video::collate_clips,
    },
    device::device,
    dsp::{MelConfig, StftConfig},
    music::Note,
    output::{
        Chroma, ImageGrid, PianoRollPlot, SpectrogramPlot, VideoFormat, VideoWriter, Y4mConfig,
        provenance::{Provenance, verify_file},
        save_frame_strip, save_video, save_video_with_provenance,
    },
};
use burn::tensor::{Tensor, TensorData};
use image::{
    AnimationDecoder, ImageDecoder,
    codecs::{gif::GifDecoder, png::PngDecoder},
};
use std::{fs::File, io::BufReader, path::Path, time::Duration};

/// Frames without margin or magnification.
fn grid() -> ImageGrid {
    ImageGrid {
        padding: 0,
        scale: 1,
        ..ImageGrid::new(1, 64)
    }
}

/// A colour clip of bytes: `[1, 3, frames, height, width]`.
fn clip(frames: usize, height: usize, width: usize) -> Tensor<5> {
    let count = 3 * frames * height * width;
    let values: Vec<f32> = (0..count).map(|i| (i * 37 % 256) as f32 / 255.0).collect();
    let dims = [1, 3, frames, height, width];
    Tensor::from_data(TensorData::new(values, dims), &device("flex").unwrap())
}

fn byte(clip: &Tensor<5>, channel: usize, frame: usize, y: usize, x: usize) -> u8 {
    let [_, _, frames, height, width] = clip.dims();
    let at = ((channel * frames + frame) * height + y) * width + x;
    let values: Vec<f32> = clip.to_data().iter::<f32>().collect();
    (values[at] * 255.0).round() as u8
}

fn frames_of(path: &Path) -> Vec<image::Frame> {
    let file = BufReader::new(File::open(path).unwrap());
    let frames = match path.extension().unwrap().to_str().unwrap() {
        "gif" => GifDecoder::new(file)
            .unwrap()
            .into_frames()
            .collect_frames(),
        _ => {
            let decoder = PngDecoder::new(file).unwrap();
            assert!(decoder.is_apng().unwrap());
            decoder.apng().unwrap().into_frames().collect_frames()
        }
    };
    frames.unwrap()
}

#[test]
fn apng_is_lossless_and_carries_provenance() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.png");
    let clip = clip(5, 6, 9);
    let provenance = Provenance::new("animator").with_seed(3);
    save_video_with_provenance(&clip, grid(), 12.5, &provenance, &path).unwrap();
    assert_eq!(verify_file(&path).unwrap().valid(), Some(&provenance));
    let frames = frames_of(&path);
    assert_eq!(frames.len(), 5);
    for (index, frame) in frames.iter().enumerate() {
        assert_eq!(Duration::from(frame.delay()), Duration::from_millis(80));
        for (x, y, pixel) in frame.buffer().enumerate_pixels() {
            let at = |channel| byte(&clip, channel, index, y as usize, x as usize);
            assert_eq!(pixel.0, [at(0), at(1), at(2), 255]);
        }
    }
    // A changed frame is another content.
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 30;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(verify_file(&path).map_or(true, |found| found.valid().is_none()));
}

#[test]
fn gif_keeps_its_pace() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.gif");
    save_video(&clip(7, 8, 8), grid(), 30.0, &path).unwrap();
    let frames = frames_of(&path);
    let delays = frames.iter().map(|frame| Duration::from(frame.delay()));
    assert_eq!(
        (frames.len(), delays.sum()),
        (7, Duration::from_millis(230))
    );
}

#[test]
fn y4m_has_all_frames() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.y4m");
    let clip = clip(3, 6, 8);
    save_video(&clip, grid(), 29.97, &path).unwrap();
    let file = std::fs::read(&path).unwrap();
    let header = "YUV4MPEG2 W8 H6 F30000:1001 Ip A1:1 C420jpeg XCOLORRANGE=LIMITED\n";
    assert!(file.starts_with(header.as_bytes()));
    assert_eq!(file.len(), header.len() + 3 * (6 + 48 + 2 * 12));

    // Without fewer colours and in full range, colours return within rounding.
    let full = Y4mConfig {
        chroma: Chroma::Yuv444,
        full_range: true,
    };
    let mut video = VideoWriter::create_as(VideoFormat::Y4m(full), &path, grid(), 25.0).unwrap();
    video.push_clips(&clip).unwrap();
    assert_eq!(video.num_frames(), 3);
    video.finish().unwrap();
    let file = std::fs::read(&path).unwrap();
    let start = file.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for (index, frame) in file[start..].chunks_exact(6 + 3 * 48).enumerate() {
        assert!(frame.starts_with(b"FRAME\n"));
        for at in 0..48 {
            let part = |plane: usize| f64::from(frame[6 + plane * 48 + at]);
            let (luma, blue, red) = (part(0), part(1) - 128.0, part(2) - 128.0);
            let green = luma - 0.344136 * blue - 0.714136 * red;
            let found = [luma + 1.402 * red, green, luma + 1.772 * blue];
            for (channel, found) in found.into_iter().enumerate() {
                let expected = f64::from(byte(&clip, channel, index, at / 8, at % 8));
                assert!((found - expected).abs() < 2.0, "{found} {expected}");
            }
        }
    }
}

#[test]
fn videos_that_fail_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let flex = device("flex").unwrap();
    let left = || std::fs::read_dir(dir.path()).unwrap().count();
    for name in ["a.png", "a.gif", "a.y4m"] {
        let path = dir.path().join(name);
        let mut video = VideoWriter::create(&path, grid(), 8.0).unwrap();
        video.push(&Tensor::zeros([1, 1, 4, 4], &flex)).unwrap();
        let other = video.push(&Tensor::zeros([1, 1, 4, 5], &flex));
        let error = other.unwrap_err().to_string();
        assert!(
            error.contains("`frames[1]` is 1×4×5, expected 1×4×4"),
            "{error}"
        );
        let colour = video.push(&Tensor::zeros([1, 3, 4, 4], &flex));
        assert!(colour.unwrap_err().to_string().contains("3×4×4"));
        drop(video);
        let empty = VideoWriter::create(&path, grid(), 8.0).unwrap().finish();
        assert!(empty.unwrap_err().to_string().contains("`frames` is 0"));
        assert_eq!(left(), 0);
    }
    let path = dir.path().join("a.y4m");
    assert!(VideoWriter::create(&path, grid(), f64::NAN).is_err());
    assert!(VideoWriter::create(&dir.path().join("a.webm"), grid(), 8.0).is_err());
    let fast = VideoWriter::create(&dir.path().join("a.gif"), grid(), 120.0);
    let error = fast.unwrap_err().to_string();
    assert!(
        error.contains("`fps` is 120, expected at most 100"),
        "{error}"
    );
    let video = VideoWriter::create(&path, grid(), 8.0).unwrap();
    let error = video
        .with_provenance(Provenance::new("x"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("Y4M"), "{error}");
    assert_eq!(left(), 0);
}

/// Two clips beside each other, as GIF, animated PNG and strip.
#[test]
fn moving_digits_can_be_looked_at() {
    let flex = device("flex").unwrap();
    let config = MovingDigitsConfig {
        len: 2,
        ..MovingDigitsConfig::default()
    };
    let clips = MovingDigits::new(digits::load(), config).unwrap();
    let clips = collate_clips(vec![clips.get(0).unwrap(), clips.get(1).unwrap()]);
    let clips = clips.to_tensor(&flex);
    let dir = tempfile::tempdir().unwrap();
    for name in ["clips.gif", "clips.png"] {
        let path = dir.path().join(name);
        save_video(&clips, ImageGrid::new(2, 32), 8.0, &path).unwrap();
        let frames = frames_of(&path);
        assert_eq!(frames.len(), 16);
        assert_eq!(frames[0].buffer().dimensions(), (2 * 64 + 6, 64 + 4));
    }
    let file = BufReader::new(File::open(dir.path().join("clips.png")).unwrap());
    let colours = PngDecoder::new(file).unwrap().color_type();
    assert_eq!(colours, image::ColorType::L8);
    let strip = dir.path().join("strip.png");
    save_frame_strip(&clips, ImageGrid::new(8, 32), &strip).unwrap();
    let strip = image::open(&strip).unwrap();
    assert_eq!((strip.width(), strip.height()), (8 * 66 + 2, 2 * 66 + 2));
}

#[test]
fn figures_are_png_files_with_provenance() {
    let dir = tempfile::tempdir().unwrap();
    let samples: Vec<f32> = (0..16_000).map(|t| (0.3 * t as f32).sin()).collect();
    let plot = SpectrogramPlot::default();
    let wave = plot
        .draw_wave(&samples, 16_000, &StftConfig::new(512, 128))
        .unwrap();
    let mel = MelConfig::whisper(80);
    let log_mel = mel.init().unwrap().log_mel(&samples).unwrap();
    let mel = plot.draw_log_mel(&log_mel, &mel).unwrap();
    let notes: Vec<Note> = (0..8u8)
        .map(|i| Note::new(0.5 * f64::from(i), 0.5 * f64::from(i + 1), 60 + i))
        .collect();
    let roll = PianoRollPlot::default()
        .with_bars_every(2.0)
        .draw(&notes)
        .unwrap();
    let provenance = Provenance::new("synthesiser");
    for (name, figure) in [("wave.png", wave), ("mel.png", mel), ("roll.png", roll)] {
        let path = dir.path().join(name);
        figure.save_with_provenance(&provenance, &path).unwrap();
        assert_eq!(verify_file(&path).unwrap().valid(), Some(&provenance));
        let picture = image::open(&path).unwrap();
        assert!(picture.width() > 300 && picture.height() > 90, "{name}");
    }
}
