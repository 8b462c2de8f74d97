//! `torpor deploy --image`: one function, served by containers.

use crate::deploy::Row;
use crate::run::function_name;
use toml_edit::{Array, Item, Table, value};

/// A function by its image.
#[derive(Debug, clap::Args)]
pub struct ByImage {
    /// The image of its containers
    #[arg(long, value_name = "IMAGE", requires = "function")]
    image: Option<String>,

    /// The function that gets the image
    #[arg(long, value_name = "NAME", value_parser = function_name, requires = "image")]
    function: Option<String>,

    /// What runs in its containers [default: what the image says]
    #[arg(last = true, value_name = "COMMAND", requires = "image")]
    command: Vec<String>,
}

impl ByImage {
    /// What is asked for, if it is.
    pub fn wanted(self) -> Option<Wanted> {
        Some(Wanted { image: self.image?, function: self.function?, command: self.command })
    }
}

/// A function, its image and its command.
#[derive(Debug)]
pub struct Wanted {
    image: String,
    function: String,
    command: Vec<String>,
}

impl Wanted {
    /// Puts it into the table of functions. What else that says of the function stays.
    pub fn put(self, functions: &mut Table) -> Row {
        let before = functions.get(&self.function).map(ToString::to_string);
        let section = functions.entry(&self.function).or_insert_with(|| Item::Table(Table::new()));
        if let Some(section) = section.as_table_like_mut() {
            section.remove("endpoints");
            section.insert("image", value(self.image));
            if self.command.is_empty() {
                section.remove("command");
            } else {
                section.insert("command", value(self.command.into_iter().collect::<Array>()));
            }
        }
        let deployed = match before {
            None => "added",
            Some(before) if before == section.to_string() => "unchanged",
            Some(_) => "changed",
        };
        Row { name: self.function, deployed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toml_edit::DocumentMut;

    #[test]
    fn a_function_keeps_what_is_not_about_its_image() {
        let text = "[functions.a]\nslo_ms = 5  # ours\nendpoints = [\"box:80\"]\n[functions.b]\nslo_ms = 6\n";
        let mut document: DocumentMut = text.parse().unwrap();
        let mut put = |name: &str, command: &[&str]| {
            let command = command.iter().map(|&word| word.to_owned()).collect();
            let wanted = Wanted { image: "any/image:2".to_owned(), function: name.to_owned(), command };
            wanted.put(document["functions"].as_table_mut().unwrap()).deployed
        };
        assert_eq!(
            [put("a", &["python", "app.py"]), put("a", &["python", "app.py"])],
            ["changed", "unchanged"]
        );
        assert_eq!([put("c", &["x"]), put("c", &[])], ["added", "changed"]);
        let after = document.to_string();
        let a = "[functions.a]\nslo_ms = 5  # ours\nimage = \"any/image:2\"\ncommand = [\"python\", \"app.py\"]\n";
        assert!(after.starts_with(a) && after.contains("[functions.b]\nslo_ms = 6\n"), "{after}");
        assert!(after.ends_with("[functions.c]\nimage = \"any/image:2\"\n"), "{after}");
    }
}
