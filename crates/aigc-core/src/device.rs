//! Devices by name.
//!
//! | name | backend | feature |
//! |---|---|---|
//! | `flex` | pure Rust CPU | `flex` (default) |
//! | `ndarray` | ndarray CPU | `ndarray` |
//! | `libtorch`, `libtorch:cuda:0`, `libtorch:mps` | LibTorch | `tch` |
//! | `wgpu`, `vulkan`, `metal` | GPU through WGPU | the same name |
//! | `cuda`, `cuda:0` | NVIDIA | `cuda` |
//! | `rocm`, `rocm:0` | AMD | `rocm` |
//! | `auto` | the first of [`available_backends`] | |

use crate::{Error, Result};
use burn::tensor::Device;

/// Every name that [`device`] accepts, with the feature it requires.
pub const BACKENDS: [(&str, &str); 8] = [
    ("flex", "flex"),
    ("ndarray", "ndarray"),
    ("libtorch", "tch"),
    ("wgpu", "wgpu"),
    ("vulkan", "vulkan"),
    ("metal", "metal"),
    ("cuda", "cuda"),
    ("rocm", "rocm"),
];

/// Names of the backends compiled into this program; the first is the choice of `auto`.
pub fn available_backends() -> Vec<&'static str> {
    // GPU before CPU; Flex before NdArray. burn's own default depends on the features that the rest
    // of the workspace enables.
    [
        ("cuda", cfg!(feature = "cuda")),
        ("rocm", cfg!(feature = "rocm")),
        ("metal", cfg!(feature = "metal")),
        ("vulkan", cfg!(feature = "vulkan")),
        ("wgpu", cfg!(feature = "wgpu")),
        ("libtorch", cfg!(feature = "tch")),
        ("flex", cfg!(feature = "flex")),
        ("ndarray", cfg!(feature = "ndarray")),
    ]
    .into_iter()
    .filter_map(|(name, on)| on.then_some(name))
    .collect()
}

/// The device called `name`, without autodiff.
///
/// The trainer enables autodiff; sampling and evaluation do not need it.
///
/// # Errors
/// [`Error::Device`] for an unknown name, an invalid index, or a backend that was not compiled in;
/// the message then names the feature to enable.
///
/// ```
/// # #[cfg(feature = "flex")] {
/// let device = aigc_core::device::device("flex")?;
/// assert!(!device.is_autodiff());
/// # }
/// # Ok::<(), aigc_core::Error>(())
/// ```
pub fn device(name: &str) -> Result<Device> {
    let fail = |reason: String| Error::Device {
        name: name.to_string(),
        reason,
    };
    let lower = name.trim().to_lowercase();
    if lower == "auto" {
        let first = available_backends().first().copied();
        return device(first.ok_or_else(|| {
            fail("this program was built without any backend; enable `flex`".into())
        })?);
    }
    let (backend, rest) = lower
        .split_once(':')
        .map_or((lower.as_str(), None), |(b, r)| (b, Some(r)));
    let Some((_, feature)) = BACKENDS.iter().find(|(known, _)| *known == backend) else {
        let known: Vec<_> = BACKENDS.iter().map(|(n, _)| *n).chain(["auto"]).collect();
        return Err(fail(format!(
            "unknown; expected one of {}",
            known.join(", ")
        )));
    };
    if !available_backends().contains(&backend) {
        return Err(fail(format!(
            "this program was built without it; enable the feature `{feature}` (built in: {})",
            available_backends().join(", ")
        )));
    }
    let place = Place::parse(rest)
        .ok_or_else(|| fail("the part after `:` is not an index such as `0`".into()))?;
    open(backend, place).ok_or_else(|| {
        fail(format!(
            "`{backend}` has no device `{}`",
            rest.unwrap_or_default()
        ))
    })
}

/// The part after the backend's name.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Default,
    Index(usize),
    Cuda(usize),
    Mps,
}

impl Place {
    fn parse(rest: Option<&str>) -> Option<Self> {
        match rest {
            None => Some(Place::Default),
            Some("cuda") => Some(Place::Cuda(0)),
            Some("mps") => Some(Place::Mps),
            Some(rest) => match rest.strip_prefix("cuda:") {
                Some(index) => index.parse().ok().map(Place::Cuda),
                None => rest.parse().ok().map(Place::Index),
            },
        }
    }
}

// NdArray and LibTorch are deprecated upstream, but supported here (docs/architecture.md).
#[allow(deprecated, unused_variables, unreachable_patterns)]
fn open(backend: &str, place: Place) -> Option<Device> {
    #[cfg(feature = "wgpu")]
    let kind = match place {
        Place::Index(i) => burn::tensor::DeviceKind::DiscreteGpu(i),
        _ => burn::tensor::DeviceKind::DefaultDevice,
    };
    match (backend, place) {
        #[cfg(feature = "flex")]
        ("flex", Place::Default) => Some(Device::flex()),
        #[cfg(feature = "ndarray")]
        ("ndarray", Place::Default) => Some(Device::ndarray()),
        #[cfg(feature = "tch")]
        ("libtorch", Place::Default) => Some(Device::libtorch()),
        #[cfg(feature = "tch")]
        ("libtorch", Place::Cuda(i)) => Some(Device::libtorch_cuda(i)),
        #[cfg(feature = "tch")]
        ("libtorch", Place::Mps) => Some(Device::libtorch_mps()),
        #[cfg(feature = "wgpu")]
        ("wgpu", Place::Default | Place::Index(_)) => Some(Device::wgpu(kind)),
        #[cfg(feature = "vulkan")]
        ("vulkan", Place::Default | Place::Index(_)) => Some(Device::vulkan(kind)),
        #[cfg(feature = "metal")]
        ("metal", Place::Default | Place::Index(_)) => Some(Device::metal(kind)),
        #[cfg(feature = "cuda")]
        ("cuda", Place::Default) => Some(Device::cuda(0)),
        #[cfg(feature = "cuda")]
        ("cuda", Place::Index(i)) => Some(Device::cuda(i)),
        #[cfg(feature = "rocm")]
        ("rocm", Place::Default) => Some(Device::rocm(0)),
        #[cfg(feature = "rocm")]
        ("rocm", Place::Index(i)) => Some(Device::rocm(i)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_backends_name_their_feature() {
        for (name, feature) in BACKENDS {
            if !available_backends().contains(&name) {
                let message = device(name).unwrap_err().to_string();
                assert!(
                    message.contains(&format!("enable the feature `{feature}`")),
                    "{message}"
                );
            }
        }
    }

    #[test]
    fn unknown_names_and_indices_are_errors() {
        assert!(
            device("gpu")
                .unwrap_err()
                .to_string()
                .contains("expected one of flex")
        );
        assert_eq!(Place::parse(Some("cuda:x")), None);
        assert_eq!(Place::parse(Some("cuda:1")), Some(Place::Cuda(1)));
        assert_eq!(Place::parse(Some("2")), Some(Place::Index(2)));
        #[cfg(feature = "flex")]
        assert!(
            device("flex:1")
                .unwrap_err()
                .to_string()
                .contains("no device")
        );
    }

    #[test]
    #[cfg(feature = "flex")]
    fn flex_and_auto_open() {
        assert_eq!(device("Flex").unwrap(), Device::flex());
        assert!(device("auto").is_ok());
    }
}
