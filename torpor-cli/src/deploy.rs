//! `torpor deploy`: functions into the settings file of a node that runs.

mod image;

use crate::admin::Admin;
use crate::deploy::image::ByImage;
use crate::error::CliError;
use crate::router::{RouterFlag, runtime};
use crate::table::{print_json, print_table};
use http_body_util::BodyExt;
use hyper::Method;
use serde::Serialize;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use toml_edit::{DocumentMut, Item, Table};
use torpor_gpuserver::server::settings::{FileError, SettingsFile};
use torpor_gpuserver::server::size::ByteSize;
use torpor_proto::control::admin::ListGpusRequest;
use torpor_router::client::{ClientError, ask_admin};

const EXAMPLES: &str = "\
The file has sections [functions.NAME] as a settings file has them, and nothing else. They take the place of those of the same name
in the settings file that the router reads, which keeps its other lines as they are. Requests that are under way are answered as they
began. What no GPU has room for is refused, and nothing changes.

With --image, the router starts the function's instances as containers of that image. What the settings file says of the function
beside its image and command stays as it is.

Examples:
  torpor deploy classify.toml
  torpor deploy --image any/pytorch --function classify -- python app.py
  torpor delete classify --forget       # the opposite";

const USAGE: &str = "\
torpor deploy [OPTIONS] FILE
       torpor deploy [OPTIONS] --image IMAGE --function NAME [-- COMMAND [ARGUMENT]...]";

/// Serve functions that a file describes, or one by its image, from now on
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, override_usage = USAGE)]
pub struct Deploy {
    /// The file
    #[arg(value_name = "FILE", required_unless_present = "image", conflicts_with = "image")]
    file: Option<PathBuf>,

    #[command(flatten)]
    by_image: ByImage,

    /// Print JSON: an array of objects
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    router: RouterFlag,
}

/// Why a function is not deployed, or not taken away.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// One of the files is none.
    #[error(transparent)]
    File(#[from] FileError),
    /// It says more than it may.
    #[error("{0} has other sections than [functions.NAME]: those belong into the node's settings file")]
    NotFunctionsAlone(PathBuf),
    /// It says nothing.
    #[error("{0} has no section [functions.NAME]")]
    Empty(PathBuf),
    /// Nobody would answer.
    #[error("functions.{0} has no command, image or endpoints: nothing would answer its requests")]
    NotServed(String),
    /// It is too large for every GPU.
    #[error(
        "functions.{name} may use {wants} of device memory (memory_limit), but the largest GPU has {has} for functions (gpu_limit)"
    )]
    NeverFits {
        /// The function.
        name: String,
        /// Its limit.
        wants: ByteSize,
        /// The GPU's.
        has: ByteSize,
    },
    /// The settings file is no TOML any more.
    #[error("the settings file {path} cannot be changed: {error}")]
    Settings {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: String,
    },
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    /// added, changed or unchanged
    deployed: &'static str,
}

impl Deploy {
    /// Checks, writes, and has the router read it.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let new = match &self.file {
            Some(file) => described(file, &self.router)?,
            None => DocumentMut::new(),
        };
        let by_image = self.by_image.wanted();
        let settings = Settings::of(&self.router)?;
        let rows = settings.change(|functions| {
            let mut rows = put(functions, &new);
            rows.extend(by_image.map(|wanted| wanted.put(functions)));
            rows
        })?;
        settings.reload(&self.router)?;
        if self.json {
            print_json(&rows);
        } else {
            let cells: Vec<_> = rows.into_iter().map(|row| [row.name, row.deployed.to_owned()]).collect();
            print_table(["NAME", "DEPLOYED"], &cells);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What a file describes, if the node can serve it.
fn described(path: &Path, router: &RouterFlag) -> Result<DocumentMut, CliError> {
    let wrong = |error| DeployError::Settings { path: path.to_owned(), error };
    let text = fs::read_to_string(path)
        .map_err(|error| FileError::Unreadable { path: path.to_owned(), error })
        .map_err(DeployError::from)?;
    let file = SettingsFile::parse(&text, path).map_err(DeployError::from)?;
    check(&file, path)?;
    let gpus = Admin::connect(&router.directory.server())?
        .call(async |api| api.list_gpus(ListGpusRequest {}).await)?
        .gpus;
    if let Some(has) = gpus.iter().map(|gpu| gpu.limit_bytes).max().filter(|&bytes| bytes > 0) {
        fits(&file, ByteSize(has))?;
    }
    let document = text.parse().map_err(|error: toml_edit::TomlError| wrong(error.message().to_owned()))?;
    Ok(document)
}

/// Whether a file describes functions that can be served, and nothing else.
fn check(file: &SettingsFile, path: &Path) -> Result<(), DeployError> {
    let alone = SettingsFile { functions: file.functions.clone(), ..SettingsFile::default() };
    if alone != *file {
        return Err(DeployError::NotFunctionsAlone(path.to_owned()));
    }
    if file.functions.is_empty() {
        return Err(DeployError::Empty(path.to_owned()));
    }
    let silent = file.functions.iter().find(|(_, section)| {
        section.command.is_none() && section.image.is_none() && section.endpoints.is_none()
    });
    silent.map_or(Ok(()), |(name, _)| Err(DeployError::NotServed(name.0.clone())))
}

/// Whether each function fits the largest GPU.
fn fits(file: &SettingsFile, has: ByteSize) -> Result<(), DeployError> {
    for (name, section) in &file.functions {
        if let Some(wants) = section.memory_limit.filter(|&wants| wants > has) {
            return Err(DeployError::NeverFits { name: name.0.clone(), wants, has });
        }
    }
    Ok(())
}

/// Puts the functions of one document into the table of another.
fn put(functions: &mut Table, new: &DocumentMut) -> Vec<Row> {
    let described = new.get("functions").and_then(Item::as_table_like);
    let mut rows = Vec::new();
    for (name, section) in described.into_iter().flat_map(|described| described.iter()) {
        let deployed = match functions.get(name) {
            None => "added",
            Some(old) if old.to_string() == section.to_string() => "unchanged",
            Some(_) => "changed",
        };
        let mut section = section.clone();
        if let Some(table) = section.as_table_mut() {
            // Behind all that is there, and not where it was in its own file.
            table.set_position(None);
        }
        functions.insert(name, section);
        rows.push(Row { name: name.to_owned(), deployed });
    }
    rows
}

/// The settings file of a router.
pub struct Settings(PathBuf);

impl Settings {
    /// Asks the router which that is.
    ///
    /// # Errors
    /// [`CliError::RouterClient`].
    pub fn of(router: &RouterFlag) -> Result<Self, CliError> {
        let path = ask(router, Method::GET, "/api/v1/settings")?;
        Ok(Self(PathBuf::from(path)))
    }

    /// Changes its functions, in one step for whoever reads it, and leaves everything else as it is.
    ///
    /// # Errors
    /// [`DeployError`].
    pub fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> Result<T, DeployError> {
        let path = &self.0;
        let failed =
            |error: &dyn ToString| DeployError::Settings { path: path.clone(), error: error.to_string() };
        let text = fs::read_to_string(path).map_err(|error| failed(&error))?;
        let mut document: DocumentMut =
            text.parse().map_err(|error: toml_edit::TomlError| failed(&error.message()))?;
        let functions = document.entry("functions").or_insert_with(implicit_table);
        let functions =
            functions.as_table_mut().ok_or_else(|| failed(&"its functions are an inline table"))?;
        let done = change(functions);
        let text = document.to_string();
        SettingsFile::parse(&text, path)?;
        replace(path, &text).map_err(|error| failed(&error))?;
        Ok(done)
    }

    /// Has the router read it now.
    ///
    /// # Errors
    /// [`CliError::RouterClient`] with what the router finds wrong.
    pub fn reload(&self, router: &RouterFlag) -> Result<(), CliError> {
        ask(router, Method::POST, "/api/v1/reload").map(drop)
    }
}

fn implicit_table() -> Item {
    let mut table = Table::new();
    // Without a heading of its own.
    table.set_implicit(true);
    Item::Table(table)
}

fn ask(router: &RouterFlag, method: Method, path: &str) -> Result<String, CliError> {
    runtime()?.block_on(async {
        let answer = ask_admin(&router.socket(), method, path, None).await?;
        let body = answer.into_body().collect().await.map_err(ClientError::Broken)?.to_bytes();
        Ok(String::from_utf8_lossy(&body).into_owned())
    })
}

/// Puts a text in a file's place, with its owner's and its group's rights.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut fresh = tempfile::NamedTempFile::new_in(folder)?;
    fresh.write_all(text.as_bytes())?;
    fresh.as_file().set_permissions(fs::metadata(path)?.permissions())?;
    fresh.as_file().sync_all()?;
    fresh.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> SettingsFile {
        SettingsFile::parse(text, Path::new("f.toml")).unwrap()
    }

    #[test]
    fn only_functions_that_can_be_served_and_fit_are_deployed() {
        let path = Path::new("f.toml");
        let wrong = |text: &str| check(&file(text), path).unwrap_err().to_string();
        assert!(
            wrong("[scheduler]\nlinger = '1s'\n[functions.f]\ncommand = ['x']").contains("other sections")
        );
        assert!(wrong("").contains("no section"));
        assert!(wrong("[functions.f]\nslo_ms = 3").contains("no command, image or endpoints"));
        let large = file("[functions.big]\ncommand = ['x']\nmemory_limit = '200GiB'");
        check(&large, path).unwrap();
        check(&file("[functions.boxed]\nimage = 'any'"), path).unwrap();
        let error = fits(&large, ByteSize(79 << 30)).unwrap_err().to_string();
        assert!(error.contains("functions.big may use 200 GiB") && error.contains("79 GiB"), "{error}");
        fits(&large, ByteSize(200 << 30)).unwrap();
    }

    #[test]
    fn the_rest_of_the_settings_file_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("torpor.toml");
        let before = "# ours\n[memory]\ngpu_limit = \"4GiB\"  # of 8\n\n[functions.a]\nslo_ms = 5\n[functions.b]\nslo_ms = 6\n";
        fs::write(&path, before).unwrap();
        let new: DocumentMut =
            "[functions.b]\nslo_ms = 6\n[functions.a]\nslo_ms = 7\n[functions.c]\n# why\ncommand = [\"x\"]\n"
                .parse()
                .unwrap();
        let rows = Settings(path.clone()).change(|functions| put(functions, &new)).unwrap();
        let told: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.deployed)).collect();
        assert_eq!(told, [("b", "unchanged"), ("a", "changed"), ("c", "added")]);
        let after = fs::read_to_string(&path).unwrap();
        assert!(after.starts_with("# ours\n[memory]\ngpu_limit = \"4GiB\"  # of 8\n"), "{after}");
        assert!(after.contains("[functions.c]\n# why\ncommand = [\"x\"]"), "{after}");
        let read = SettingsFile::parse(&after, &path).unwrap();
        assert_eq!(read.functions.len(), 3);
        assert_eq!(read.functions[&"a".parse().unwrap()].slo_ms.map(std::num::NonZeroU32::get), Some(7));
        fs::write(&path, "").unwrap();
        Settings(path.clone()).change(|functions| put(functions, &new)).unwrap();
        assert!(!fs::read_to_string(&path).unwrap().contains("[functions]\n"));
        Settings(path.clone()).change(|functions| functions.remove("c")).unwrap();
        assert!(!fs::read_to_string(&path).unwrap().contains("functions.c"));
    }
}
