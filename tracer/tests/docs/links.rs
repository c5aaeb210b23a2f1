//! The index, links and names of files.

use std::{ffi::OsStr, fs, path::Path};

use crate::{
    markdown::code,
    page::{DOCUMENTS, heading, read, root},
};

/// Every page of `docs/` is in the index.
#[test]
fn the_index_lists_every_page() {
    let index = read("docs/index.md");
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if Path::new(&name).extension() == Some(OsStr::new("md")) && name != "index.md" {
            assert!(index.contains(&format!("]({name}")), "{name}");
        }
    }
}

/// Returns the link anchor of a heading.
fn anchor(title: &str) -> String {
    title
        .to_lowercase()
        .chars()
        .filter(|it| it.is_alphanumeric() || matches!(it, ' ' | '-' | '_'))
        .map(|it| if it == ' ' { '-' } else { it })
        .collect()
}

#[test]
fn links_resolve() {
    for name in DOCUMENTS {
        let text = read(name);
        let folder = root().join(name).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("https://") {
                continue;
            }
            let (path, wanted) = link.split_once('#').map_or((link, None), |(path, it)| (path, Some(it)));
            let target = if path.is_empty() { root().join(name) } else { folder.join(path) };
            assert!(target.exists(), "{name}: {link}");
            if let Some(wanted) = wanted {
                let text = fs::read_to_string(target).unwrap();
                let found = text.lines().filter_map(heading).any(|(_, title)| anchor(title) == wanted);
                assert!(found, "{name}: {link}");
            }
        }
    }
}

/// Lists every file and folder of the repository except build output, relative to its root.
fn files() -> Vec<String> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the repository can be listed") {
            let path = entry.expect("the repository can be listed").path();
            let name = path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
            if name == "target" || name == ".git" {
                continue;
            }
            found.push(format!("/{name}"));
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}

#[test]
fn mentioned_files_exist() {
    let files = files();
    for name in DOCUMENTS {
        // Code blocks contain commands and their output.
        let prose: String = read(name).split("```").step_by(2).collect();
        for word in code(&prose) {
            let extension = Path::new(&word).extension().and_then(OsStr::to_str);
            let is_source = extension.is_some_and(|it| ["md", "rs", "sh", "toml"].contains(&it));
            let is_folder = word.ends_with('/') && !word.starts_with('/');
            if !is_source && !is_folder && !word.starts_with(".ci/") {
                continue;
            }
            let end = format!("/{}", word.trim_end_matches('/'));
            assert!(
                files.iter().any(|file| file.ends_with(&end)),
                "{name} names `{word}`, which does not exist"
            );
        }
    }
}
