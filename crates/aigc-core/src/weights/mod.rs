//! Weights in files: one reader and one writer for every model.
//!
//! [`WeightReader`] opens safetensors, shards with or without their index, PyTorch's pickles (which
//! are never executed), and variants such as `fp16`. It reads one tensor at a time.
//! [`WeightReader::load_into`] loads them into a model; a [`KeyMapping`] gives the name and layout
//! of each parameter. [`save_weights`] writes safetensors with PyTorch's names and layouts.
//!
//! | file | content |
//! |---|---|
//! | `candidates` | the choice of files in a directory |
//! | `reader`, `header`, `stored`, `pickle` | tensors in files, and their values |
//! | `views` | tensors under other names and in other layouts: checkpoints in a single file |
//! | `mapping`, `load`, `loaded` | from tensors to parameters, and the report |
//! | `open`, `pretrained`, `methods` | directories of models |
//! | `edit` | changes of parameters by their names in files: adapters |
//! | `save` | writing |

mod candidates;
mod edit;
mod header;
mod load;
mod loaded;
mod mapping;
mod methods;
mod open;
mod pickle;
mod pretrained;
mod reader;
mod save;
mod stored;
mod views;

pub use candidates::shard_files;
#[cfg(feature = "download")]
pub(crate) use candidates::weight_files;
pub use edit::{Originals, StoredParam, edit_params, restore_params, stored_params};
pub use load::{LoadReport, WeightDtype, load_weights, load_weights_with_mapping};
pub use loaded::Loaded;
pub use mapping::{KeyMapping, ParamKey, RenamedField, pytorch_key, renamed_key};
pub use open::{OpenOptions, open_model};
#[cfg(feature = "download")]
pub use pretrained::download_pretrained;
pub use pretrained::{load_pretrained, load_pretrained_with, save_pretrained};
pub use reader::{WeightReader, hash_files};
pub use save::{save_tensors, save_weights};
pub use views::TensorSource;
