//! What lies in `state/` of a checkpoint so that training can go on exactly: `optimizer.safetensors` has the moments,
//! `exp_avg.<name>` and `exp_avg_sq.<name>` as PyTorch calls them; where the model itself is written rounded,
//! `parameters.safetensors` has it exactly. All are float32, by Hugging Face names, whatever the engine.

use crate::Error;
use remit_model::Layout;
use remit_store::tensors::{FileDtype, TensorDirectory, TensorOut, write_tensors};
use std::path::{Path, PathBuf};

/// Prefix of first moments.
pub const FIRST: &str = "exp_avg.";
/// Prefix of second moments.
pub const SECOND: &str = "exp_avg_sq.";

const OPTIMIZER: &str = "optimizer";
const PARAMETERS: &str = "parameters";

/// Whether a checkpoint has moments.
pub fn has_moments(checkpoint: &Path) -> bool {
    file(checkpoint, OPTIMIZER).is_file()
}

/// The directory of state in a checkpoint.
pub fn directory(checkpoint: &Path) -> PathBuf {
    checkpoint.join("state")
}

fn file(checkpoint: &Path, stem: &str) -> PathBuf {
    directory(checkpoint).join(format!("{stem}.safetensors"))
}

/// Writes both moments, each laid out as the parameters.
pub(crate) fn save_moments(
    checkpoint: &Path,
    layout: &Layout,
    first: &[f32],
    second: &[f32],
) -> Result<(), Error> {
    write(checkpoint, OPTIMIZER, layout, &[(FIRST, first), (SECOND, second)])
}

/// Writes the exact parameters.
pub(crate) fn save_parameters(checkpoint: &Path, layout: &Layout, values: &[f32]) -> Result<(), Error> {
    write(checkpoint, PARAMETERS, layout, &[("", values)])
}

/// Reads both moments.
pub(crate) fn load_moments(
    checkpoint: &Path,
    layout: &Layout,
    first: &mut [f32],
    second: &mut [f32],
) -> Result<(), Error> {
    let files = TensorDirectory::open_stem(&directory(checkpoint), OPTIMIZER)?;
    read(&files, FIRST, layout, first)?;
    read(&files, SECOND, layout, second)
}

/// Reads the exact parameters where a checkpoint has them beside rounded ones.
pub(crate) fn load_parameters(checkpoint: &Path, layout: &Layout, values: &mut [f32]) -> Result<(), Error> {
    if !file(checkpoint, PARAMETERS).is_file() {
        return Ok(());
    }
    read(&TensorDirectory::open_stem(&directory(checkpoint), PARAMETERS)?, "", layout, values)
}

/// The files of state that another process reads.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// The exact parameters, where a checkpoint has them beside rounded ones.
    pub parameters: Option<PathBuf>,
    /// The moments, where they are wanted.
    pub moments: Option<PathBuf>,
}

impl Files {
    /// Finds and checks them; reads none.
    pub fn find(checkpoint: &Path, layout: &Layout, moments: bool) -> Result<Files, Error> {
        let open = |stem| TensorDirectory::open_stem(&directory(checkpoint), stem);
        let parameters = Some(file(checkpoint, PARAMETERS)).filter(|path| path.is_file());
        if parameters.is_some() {
            check(&open(PARAMETERS)?, "", layout)?;
        }
        if moments {
            let files = open(OPTIMIZER)?;
            check(&files, FIRST, layout)?;
            check(&files, SECOND, layout)?;
        }
        Ok(Files { parameters, moments: moments.then(|| file(checkpoint, OPTIMIZER)) })
    }
}

fn write(checkpoint: &Path, stem: &str, layout: &Layout, parts: &[(&str, &[f32])]) -> Result<(), Error> {
    let named = parts.iter().flat_map(|(prefix, values)| {
        let entries = layout.entries().iter();
        entries.map(move |entry| (format!("{prefix}{}", entry.name), entry, &values[entry.range.clone()]))
    });
    let named: Vec<_> = named.collect();
    let tensors: Vec<TensorOut> =
        named.iter().map(|(name, entry, data)| TensorOut { name, shape: &entry.shape, data }).collect();
    Ok(write_tensors(&directory(checkpoint), stem, &tensors, FileDtype::F32, None).map(drop)?)
}

fn read(files: &TensorDirectory, prefix: &str, layout: &Layout, values: &mut [f32]) -> Result<(), Error> {
    check(files, prefix, layout)?;
    for entry in layout.entries() {
        files.read_f32(&format!("{prefix}{}", entry.name), &mut values[entry.range.clone()])?;
    }
    Ok(())
}

/// Whether there is a tensor of the right shape for every parameter.
fn check(files: &TensorDirectory, prefix: &str, layout: &Layout) -> Result<(), Error> {
    for entry in layout.entries() {
        let name = format!("{prefix}{}", entry.name);
        let found = files.info(&name)?.shape;
        if found != entry.shape.as_slice() {
            let problem = format!("tensor `{name}` has shape {found:?}, the model has {:?}", entry.shape);
            return Err(Error::State { path: files.path().to_owned(), problem });
        }
    }
    Ok(())
}
