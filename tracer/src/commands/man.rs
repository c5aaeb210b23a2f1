//! `man`: writes one man page to stdout, or all to a folder.

use std::fs;

use anyhow::Context as _;

use crate::{
    cli::{ManArguments, pages},
    commands::print,
};

pub(super) fn run(arguments: &ManArguments) -> anyhow::Result<()> {
    let Some(folder) = &arguments.to else {
        let page = arguments.page().context("there is no page of this command")?;
        return print(&page.text);
    };
    let failed = || format!("the man pages cannot be written to {}", folder.display());
    fs::create_dir_all(folder).with_context(failed)?;
    for page in pages() {
        fs::write(folder.join(page.file), page.text).with_context(failed)?;
    }
    Ok(())
}
