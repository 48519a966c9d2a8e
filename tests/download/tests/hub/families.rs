//! Models of every family by their names: what is downloaded, what is not, and what it opens as.

use super::*;
use aigc_core::{
    data::{ImageShape, SampleShape, download::ProgressFn},
    rng::InitWeights,
    weights::{Loaded, WeightReader, save_tensors},
};
use aigc_diffusion::{AnyDenoiser, DdimScheduler, Pipeline, UNet2dConfig};
use aigc_gan::{
    AnyGan, DcganConfig, Gan, GanConfig, MlpGanConfig,
    models::{MlpDiscriminator, MlpGenerator},
};
use aigc_tests::{bits, small_gpt2};
use aigc_vae::{AnyVae, MlpVaeConfig, VaeConfig};
use burn::{
    module::Module,
    tensor::{Device, TensorData},
};
use std::{collections::BTreeSet, process::Command};
use tempfile::{TempDir, tempdir};

type PointGan = Gan<MlpGenerator<2>, MlpDiscriminator<2>>;

/// Index, configurations and weights of a pipeline.
const INDEX: &str = "model_index.json";
const UNET: &str = "unet/config.json";
const SCHEDULER: &str = "scheduler/scheduler_config.json";
const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";

fn flex() -> Device {
    device::device("flex").unwrap()
}

fn vae(seed: u64) -> AnyVae {
    let config = MlpVaeConfig {
        hidden_dim: 8,
        latent_dim: 4,
        ..MlpVaeConfig::new(ImageShape::new(1, 4, 4))
    };
    let model = VaeConfig::Mlp(config).init(&flex()).unwrap();
    model.init_weights(seed)
}

fn gan(seed: u64) -> AnyGan {
    let config = DcganConfig {
        latent_dim: 4,
        channels: vec![4, 8],
        ..DcganConfig::new(ImageShape::new(1, 8, 8))
    };
    let model = GanConfig::Dcgan(config).init(&flex()).unwrap();
    model.init_weights(seed)
}

fn point_gan(seed: u64) -> PointGan {
    let config = MlpGanConfig {
        latent_dim: 4,
        hidden: vec![8],
        ..MlpGanConfig::new(SampleShape::new(&[2]))
    };
    config.init::<2>(&flex()).unwrap().init_weights(seed)
}

fn denoiser(seed: u64) -> AnyDenoiser {
    let config = UNet2dConfig {
        block_out_channels: vec![8, 8],
        norm_num_groups: 4,
        ..UNet2dConfig::small(ImageShape::new(1, 8, 8), None)
    };
    config.init(&flex()).unwrap().init_weights(seed).into()
}

fn gpt2(seed: u64) -> Gpt2 {
    small_gpt2(seed, 12, 8, [1, 2, 16])
}

fn pipeline(seed: u64) -> Pipeline {
    let shape = ImageShape::new(1, 8, 8);
    Pipeline::new(denoiser(seed), DdimScheduler::default(), shape).unwrap()
}

/// What models of all families have in common.
trait Named: Module {
    /// Stem of the names of its weights.
    const STEM: &'static str;

    fn fetch(hub: &Hub, variant: Option<&str>) -> Result<PathBuf>;
    fn open_files(dir: &Path, variant: Option<&str>) -> Result<Loaded<Self>>;
    fn write_files(&self, dir: &Path);
}

macro_rules! named {
    ($($model:ty = $stem:literal;)*) => {$(
        impl Named for $model {
            const STEM: &'static str = $stem;

            fn fetch(hub: &Hub, variant: Option<&str>) -> Result<PathBuf> {
                let progress: &mut ProgressFn<'_> = &mut |_, _, _| {};
                match variant {
                    None => <$model>::snapshot(hub, REPO, "main", progress),
                    Some(variant) => {
                        <$model>::snapshot_with_variant(hub, REPO, "main", variant, progress)
                    }
                }
            }

            fn open_files(dir: &Path, variant: Option<&str>) -> Result<Loaded<Self>> {
                match variant {
                    None => <$model>::from_pretrained(dir, &flex()),
                    Some(variant) => {
                        <$model>::from_pretrained_with_variant(dir, variant, &flex())
                    }
                }
            }

            fn write_files(&self, dir: &Path) {
                self.save_pretrained(dir).unwrap();
            }
        }
    )*};
}

named! {
    AnyVae = "model";
    AnyGan = "model";
    PointGan = "model";
    AnyDenoiser = "diffusion_pytorch_model";
    Gpt2 = "model";
}

/// What the hub has of a directory.
pub(crate) fn site(dir: &Path) -> Site {
    let mut site = Site {
        commit: COMMIT.into(),
        ..Site::default()
    };
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(next) = dirs.pop() {
        for name in names(&next) {
            let path = next.join(name);
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let name = path.strip_prefix(dir).unwrap().to_string_lossy();
            let etag = format!("{:040x}", site.files.len());
            let content = fs::read(&path).unwrap();
            site.files.insert(name.replace('\\', "/"), (etag, content));
        }
    }
    site
}

/// A hub that has these files, and an empty cache.
pub(crate) fn serve(site: Site) -> (Server, Hub, TempDir) {
    let cache = tempdir().unwrap();
    let server = Server::new("127.0.0.1", site);
    let hub = server.hub(cache.path());
    (server, hub, cache)
}

/// Names of the files requested from the server since the last call.
pub(crate) fn requested(server: &Server) -> BTreeSet<String> {
    let name = |line: String| {
        let (_, rest) = line.split_once("/resolve/")?;
        let (_, name) = rest.trim_end_matches(" token").split_once('/')?;
        Some(name.to_owned())
    };
    server.log().into_iter().filter_map(name).collect()
}

pub(crate) fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| name.to_string()).collect()
}

/// Those of the requested files that are named as weights.
fn requested_weights<M: Named>(server: &Server) -> Vec<String> {
    let asked = requested(server).into_iter();
    asked.filter(|name| name.starts_with(M::STEM)).collect()
}

fn opens_by_name<M: Named>(model: &M) {
    let saved = tempdir().unwrap();
    model.write_files(saved.path());
    let (server, hub, cache) = serve(site(saved.path()));
    let dir = M::fetch(&hub, None).unwrap();
    assert!(dir.starts_with(cache.path()), "{}", dir.display());
    let weights = format!("{}.safetensors", M::STEM);
    assert_eq!(requested_weights::<M>(&server), [weights]);
    let opened = M::open_files(&dir, None).unwrap();
    assert!(opened.warnings().is_empty(), "{opened}");
    assert_eq!(bits(&*opened), bits(model));
    // Again with one question, and without any.
    assert_eq!(M::fetch(&hub, None).unwrap(), dir);
    assert_eq!(
        server.log(),
        ["HEAD /org/tiny/resolve/main/config.json token"]
    );
    let offline = Hub {
        offline: true,
        ..hub
    };
    assert_eq!(M::fetch(&offline, None).unwrap(), dir);
    assert_eq!(server.log(), [""; 0]);
}

#[test]
fn every_family_opens_by_name() {
    opens_by_name(&vae(1));
    opens_by_name(&gan(1));
    opens_by_name(&point_gan(1));
    opens_by_name(&denoiser(1));
    opens_by_name(&gpt2(1));
}

/// `from_hub` finds hub and cache by the environment of the process, so this test starts itself in
/// another one.
#[test]
fn from_hub_uses_hub_of_environment() {
    const SAVED: &str = "AIGC_TEST_SAVED_MODEL";
    if let Some(saved) = std::env::var_os(SAVED) {
        let progress: &mut ProgressFn<'_> = &mut |_, _, _| {};
        let (model, dir) = AnyVae::from_hub(REPO, "main", &flex(), progress).unwrap();
        assert_eq!(bits(&*model), bits(&vae(1)));
        let (variant, same) =
            AnyVae::from_hub_with_variant(REPO, "main", "ema", &flex(), progress).unwrap();
        assert_eq!(bits(&*variant), bits(&vae(2)));
        assert_eq!(dir, same);
        assert_eq!(names(&dir), names(Path::new(&saved)));
        return;
    }
    let (saved, other) = (tempdir().unwrap(), tempdir().unwrap());
    vae(1).write_files(saved.path());
    vae(2).write_files(other.path());
    let [from, to] = [
        other.path().join("model.safetensors"),
        saved.path().join("model.ema.safetensors"),
    ];
    fs::copy(from, to).unwrap();
    let (server, _, cache) = serve(site(saved.path()));
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "families::from_hub_uses_hub_of_environment"])
        .env(SAVED, saved.path())
        .env("HF_ENDPOINT", &server.url)
        .env("HF_HUB_CACHE", cache.path())
        .env("HF_TOKEN", "hf_secret")
        .env_remove("HF_HUB_OFFLINE")
        .env_remove("TRANSFORMERS_OFFLINE")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert_eq!(
        requested(&server),
        set(&["config.json", "model.ema.safetensors", "model.safetensors"])
    );
}

/// A variant is downloaded without the weights beside it, and they without the variant.
fn variant_opens_by_name<M: Named>(model: &M, other: &M) {
    let (saved, second) = (tempdir().unwrap(), tempdir().unwrap());
    model.write_files(saved.path());
    other.write_files(second.path());
    let file = |variant: &str| format!("{}{variant}.safetensors", M::STEM);
    let variant = saved.path().join(file(".fp16"));
    fs::copy(second.path().join(file("")), variant).unwrap();
    let (server, hub, _cache) = serve(site(saved.path()));
    let dir = M::fetch(&hub, Some("fp16")).unwrap();
    assert_eq!(requested_weights::<M>(&server), [file(".fp16")]);
    let of = |variant| bits(&*M::open_files(&dir, variant).unwrap());
    assert_eq!(of(Some("fp16")), bits(other));
    assert_eq!(M::fetch(&hub, None).unwrap(), dir);
    assert_eq!(requested_weights::<M>(&server), [file("")]);
    assert_eq!(of(None), bits(model));
    assert_eq!(of(Some("fp16")), bits(other));
    let missing = refused(M::fetch(&hub, Some("bf16")));
    assert!(missing.contains(&file(".bf16")), "{missing}");
    server.log();
    for bad in ["", "a.b", "a-b", "../a", "a/b"] {
        let text = refused(M::fetch(&hub, Some(bad)));
        assert!(text.contains("`variant`"), "{text}");
    }
    assert_eq!(server.log(), [""; 0]);
    // Only a variant: it has to be named.
    let mut alone = site(saved.path());
    alone.files.remove(&file(""));
    let (_server, hub, _cache) = serve(alone);
    let text = refused(M::fetch(&hub, None));
    let expected = format!("the repository has no {}", file(""));
    assert!(
        text.contains(&expected) && text.contains("from_hub_with_variant"),
        "{text}"
    );
}

#[test]
fn variants_open_by_name() {
    variant_opens_by_name(&vae(1), &vae(2));
    variant_opens_by_name(&gan(1), &gan(2));
    variant_opens_by_name(&point_gan(1), &point_gan(2));
    variant_opens_by_name(&denoiser(1), &denoiser(2));
    variant_opens_by_name(&gpt2(1), &gpt2(2));
}

/// Replaces a weight file by two shards and their index.
fn split(whole: &Path, shard: impl Fn(usize) -> String, index: &str) {
    let reader = WeightReader::open(whole).unwrap();
    let mut shards = [BTreeMap::new(), BTreeMap::new()];
    let mut map = serde_json::Map::new();
    for (i, name) in reader.names().enumerate() {
        let shape = reader.shape(name).unwrap().to_vec();
        let data = TensorData::new(reader.read(name).unwrap(), shape);
        shards[i % 2].insert(name.to_owned(), data);
        map.insert(name.to_owned(), shard(i % 2 + 1).into());
    }
    drop(reader);
    let dir = whole.parent().unwrap();
    for (i, tensors) in shards.iter().enumerate() {
        save_tensors(tensors, &dir.join(shard(i + 1))).unwrap();
    }
    let text = serde_json::json!({ "weight_map": map }).to_string();
    fs::write(dir.join(index), text).unwrap();
    fs::remove_file(whole).unwrap();
}

/// Shards and indices of a variant have other names in older versions of diffusers.
fn variant_shards_open_by_name<M: Named>(model: &M) {
    let stem = M::STEM;
    for old in [false, true] {
        let saved = tempdir().unwrap();
        model.write_files(saved.path());
        let shard = |i: usize| match old {
            false => format!("{stem}.fp16-0000{i}-of-00002.safetensors"),
            true => format!("{stem}-0000{i}-of-00002.fp16.safetensors"),
        };
        let index = match old {
            false => format!("{stem}.safetensors.index.fp16.json"),
            true => format!("{stem}.safetensors.fp16.index.json"),
        };
        let whole = saved.path().join(format!("{stem}.safetensors"));
        split(&whole, shard, &index);
        let (server, hub, _cache) = serve(site(saved.path()));
        let dir = M::fetch(&hub, Some("fp16")).unwrap();
        let asked = requested(&server);
        for name in [shard(1), shard(2), index] {
            assert!(asked.contains(&name), "{name} of {asked:?}");
        }
        let opened = M::open_files(&dir, Some("fp16")).unwrap();
        assert_eq!(bits(&*opened), bits(model));
    }
}

#[test]
fn shards_of_variants_open_by_name() {
    variant_shards_open_by_name(&denoiser(1));
    variant_shards_open_by_name(&gpt2(1));
}

/// The site with a part of a file replaced.
fn spoilt(site: &Site, file: &str, from: &str, to: &str) -> Site {
    let mut site = site.clone();
    let (_, content) = site.files.get_mut(file).unwrap();
    let text = String::from_utf8(content.clone()).unwrap();
    let changed = text.replace(from, to);
    assert_ne!(changed, text, "{from}");
    *content = changed.into_bytes();
    site
}

/// An error of a file, before weights are downloaded.
fn config_error(result: Result<PathBuf>, file: &str, expected: &str) {
    let error = result.unwrap_err();
    let Error::Data { path, .. } = &error else {
        panic!("{error:?}")
    };
    assert!(path.ends_with(file), "{}", path.display());
    assert!(error.to_string().contains(expected), "{error}");
}

fn config_is_checked<M: Named>(model: &M, cases: &[(&str, &str, &str)]) {
    let saved = tempdir().unwrap();
    model.write_files(saved.path());
    for (from, to, expected) in cases {
        let site = spoilt(&site(saved.path()), "config.json", from, to);
        let (server, hub, _cache) = serve(site);
        config_error(M::fetch(&hub, None), "config.json", expected);
        assert_eq!(requested(&server), set(&["config.json"]));
    }
}

#[test]
fn configs_are_checked_before_weights() {
    let latent_dim = (
        "\"latent_dim\": 4",
        "\"latent_dim\": 0",
        "`latent_dim` is 0",
    );
    let kind = |from| (from, "\"kind_of_tomorrow\"", "unknown variant");
    config_is_checked(&vae(1), &[kind("\"mlp\""), latent_dim]);
    config_is_checked(&gan(1), &[kind("\"dcgan\""), latent_dim]);
    config_is_checked(&point_gan(1), &[kind("\"mlp\""), latent_dim]);
    config_is_checked(
        &denoiser(1),
        &[
            ("UNet2DModel", "VQModel", "`_class_name` is VQModel"),
            (
                "\"in_channels\": 1",
                "\"in_channels\": 0",
                "`in_channels` is 0",
            ),
        ],
    );
    config_is_checked(&gpt2(1), &[("\"gpt2\"", "\"bert\"", "bert")]);
}

/// The configuration of one type of GAN, opened as the other.
#[test]
fn networks_of_another_type_are_refused_before_weights() {
    let saved = tempdir().unwrap();
    gan(1).write_files(saved.path());
    let (server, hub, _cache) = serve(site(saved.path()));
    config_error(
        PointGan::fetch(&hub, None),
        "config.json",
        "open it as `AnyGan`",
    );
    assert_eq!(requested(&server), set(&["config.json"]));
    let saved = tempdir().unwrap();
    point_gan(1).write_files(saved.path());
    let (server, hub, _cache) = serve(site(saved.path()));
    config_error(AnyGan::fetch(&hub, None), "config.json", "`shape`");
    assert_eq!(requested(&server), set(&["config.json"]));
}

fn fetch_pipeline(hub: &Hub) -> Result<PathBuf> {
    Pipeline::snapshot(hub, REPO, "main", &mut |_, _, _| {})
}

fn images(pipeline: &Pipeline) -> TensorData {
    let flex = flex();
    let sampler = pipeline.sampler(2, &flex).unwrap();
    sampler.sample(2, 5).unwrap().values.into_data()
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for name in names(from) {
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

#[test]
fn pipelines_download_only_what_they_open() {
    let (saved, expected) = (tempdir().unwrap(), pipeline(1));
    expected.save_pretrained(saved.path()).unwrap();
    let at = |name: &str| saved.path().join(name);
    let index = fs::read_to_string(at(INDEX)).unwrap();
    let more = r#""vae": ["diffusers", "AutoencoderKL"], "unet""#;
    fs::write(at(INDEX), index.replace("\"unet\"", more)).unwrap();
    for other in ["vae", "unet_ema", "text_encoder"] {
        copy_files(&at("unet"), &at(other));
    }
    let (server, hub, _cache) = serve(site(saved.path()));
    let dir = fetch_pipeline(&hub).unwrap();
    // There could be a flat pipeline's configuration.
    assert_eq!(
        requested(&server),
        set(&["config.json", INDEX, SCHEDULER, UNET, WEIGHTS])
    );
    assert_eq!(names(&dir), [INDEX, "scheduler", "unet"]);
    let opened = Pipeline::from_pretrained(&dir, &flex()).unwrap();
    assert_eq!(bits(&opened.network), bits(&expected.network));
    assert_eq!(opened.scheduler, expected.scheduler);
    assert_eq!(images(&opened), images(&expected));
    assert_eq!(
        opened.notes,
        ["component vae (AutoencoderKL) was not opened"]
    );
    // Again with one question, and without any.
    assert_eq!(fetch_pipeline(&hub).unwrap(), dir);
    assert_eq!(
        server.log(),
        ["HEAD /org/tiny/resolve/main/model_index.json token"]
    );
    let offline = Hub {
        offline: true,
        ..hub
    };
    assert_eq!(fetch_pipeline(&offline).unwrap(), dir);
    assert_eq!(server.log(), [""; 0]);
}

#[test]
fn pipelines_of_every_layout_open_by_name() {
    let weights = "diffusion_pytorch_model.safetensors";
    let flat = [
        (UNET, "config.json"),
        (WEIGHTS, weights),
        (SCHEDULER, "scheduler_config.json"),
    ];
    let expected = pipeline(1);
    let layouts = [
        (&flat[..], &[][..]),
        (&flat, &[INDEX]),
        (&[("unet", "unet_ema")], &[]),
    ];
    for (moves, removed) in layouts {
        let saved = tempdir().unwrap();
        expected.save_pretrained(saved.path()).unwrap();
        for (from, to) in moves {
            fs::rename(saved.path().join(from), saved.path().join(to)).unwrap();
        }
        for file in removed {
            fs::remove_file(saved.path().join(file)).unwrap();
        }
        let (server, hub, cache) = serve(site(saved.path()));
        let dir = fetch_pipeline(&hub).unwrap();
        let opened = Pipeline::from_pretrained(&dir, &flex()).unwrap();
        assert_eq!(bits(&opened.network), bits(&expected.network));
        assert_eq!(opened.scheduler, expected.scheduler);
        // Other programs do not store which files a repository does not have.
        let no_exist = cache.path().join(FOLDER).join(".no_exist");
        fs::remove_dir_all(no_exist).unwrap();
        server.log();
        let offline = Hub {
            offline: true,
            ..hub
        };
        assert_eq!(fetch_pipeline(&offline).unwrap(), dir);
        assert_eq!(server.log(), [""; 0]);
    }
    // Shards of a component's weights.
    let saved = tempdir().unwrap();
    expected.save_pretrained(saved.path()).unwrap();
    let shard = |i| format!("diffusion_pytorch_model-0000{i}-of-00002.safetensors");
    let index = format!("{weights}.index.json");
    split(&saved.path().join(WEIGHTS), shard, &index);
    let (_server, hub, _cache) = serve(site(saved.path()));
    let dir = fetch_pipeline(&hub).unwrap();
    let opened = Pipeline::from_pretrained(&dir, &flex()).unwrap();
    assert_eq!(bits(&opened.network), bits(&expected.network));
}

#[test]
fn pipelines_open_variants_by_name() {
    let (saved, second) = (tempdir().unwrap(), tempdir().unwrap());
    pipeline(1).save_pretrained(saved.path()).unwrap();
    let expected = pipeline(2);
    expected.save_pretrained(second.path()).unwrap();
    let variant = WEIGHTS.replace(".safetensors", ".fp16.safetensors");
    fs::copy(second.path().join(WEIGHTS), saved.path().join(&variant)).unwrap();
    let (server, hub, _cache) = serve(site(saved.path()));
    let dir =
        Pipeline::snapshot_with_variant(&hub, REPO, "main", "fp16", &mut |_, _, _| {}).unwrap();
    let asked = requested(&server);
    assert!(
        asked.contains(&variant) && !asked.contains(WEIGHTS),
        "{asked:?}"
    );
    let opened = Pipeline::from_pretrained_with_variant(&dir, "fp16", &flex()).unwrap();
    assert_eq!(bits(&opened.network), bits(&expected.network));
}

#[test]
fn pipeline_configs_are_checked_before_weights() {
    let saved = tempdir().unwrap();
    pipeline(1).save_pretrained(saved.path()).unwrap();
    for (file, from, to, expected) in [
        (INDEX, "UNet2DModel", "UNet3DModel", "`unet` is UNet3DModel"),
        (
            UNET,
            "UNet2DModel",
            "UNet2DConditionModel",
            "expected UNet2DModel",
        ),
        (
            UNET,
            "\"in_channels\": 1",
            "\"in_channels\": 0",
            "`in_channels` is 0",
        ),
        (SCHEDULER, "0.02", "2.0", "`beta_end` is 2"),
    ] {
        let (server, hub, _cache) = serve(spoilt(&site(saved.path()), file, from, to));
        config_error(fetch_pipeline(&hub), file, expected);
        let asked = requested(&server);
        assert!(
            !asked.iter().any(|name| name.contains(".safetensors")),
            "{asked:?}"
        );
    }
    let mut bare = site(saved.path());
    bare.files.remove(UNET);
    let (_server, hub, _cache) = serve(bare);
    let text = refused(fetch_pipeline(&hub));
    let expected = "has no unet/config.json, unet_ema/config.json, config.json";
    assert!(text.contains(expected), "{text}");
}
