//! speedscope in a headless Chromium: it opens the folded stacks as a person would, by its file.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tailbeam::render::export::folded;
use tailbeam::render::export::pprof::Metric;

use super::Made;
use super::programs::{consumer, npm, run};

/// Opens speedscope's page, gives it the file and says what it shows.
const SCRIPT: &str = r#"
const { chromium } = require('playwright-core');
const http = require('http'), fs = require('fs'), path = require('path');
const [root, file, shell] = process.argv.slice(2);
const types = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.wasm': 'application/wasm' };
const server = http.createServer((request, answer) => {
  const name = path.join(root, path.normalize(new URL(request.url, 'http://x').pathname));
  fs.readFile(name, (error, bytes) => {
    answer.writeHead(error ? 404 : 200, { 'Content-Type': types[path.extname(name)] || 'application/octet-stream' });
    answer.end(error ? '' : bytes);
  });
});
server.listen(0, '127.0.0.1', async () => {
  const browser = await chromium.launch({ executablePath: shell, args: ['--no-sandbox', '--use-gl=swiftshader', '--enable-unsafe-swiftshader'] });
  try {
    const page = await browser.newPage();
    const errors = [];
    page.on('pageerror', error => errors.push(String(error)));
    await page.goto(`http://127.0.0.1:${server.address().port}/index.html`);
    await page.setInputFiles('input[type=file]', file);
    await page.getByText('Sandwich').first().click({ timeout: 30000 });
    await page.getByText('Symbol Name').first().waitFor({ timeout: 30000 });
    console.log(JSON.stringify({ title: await page.title(), text: await page.innerText('body'), errors }));
  } finally {
    await browser.close();
    server.close();
  }
});
"#;

fn browser() -> Option<(PathBuf, PathBuf)> {
    let modules = npm().join("node_modules");
    let page = modules.join("speedscope/dist/release");
    let shells = ["/usr/bin/chromium-headless-shell", "/usr/bin/chromium"];
    let shell = shells.iter().map(PathBuf::from).find(|path| path.exists());
    let found = page.exists() && modules.join("playwright-core").exists() && shell.is_some();
    consumer("speedscope, playwright-core and a headless Chromium", found).then_some(())?;
    Some((page, shell?))
}

#[test]
fn speedscope_opens_the_folded_stacks_and_lists_our_functions() {
    let Some((page, shell)) = browser() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (stacks, script) = (dir.path().join("heap.folded"), dir.path().join("open.js"));
    let made = Made::new(|_| {});
    let mut file = fs::File::create(&stacks).unwrap();
    made.export(None, |export| folded::write(export, Metric::InuseSpace, &mut file).unwrap());
    fs::write(&script, SCRIPT).unwrap();
    let node = npm().join("node_modules/node/bin/node");
    let mut command = Command::new(node);
    command.env("NODE_PATH", npm().join("node_modules")).env("HOME", dir.path());
    let out = run(command.arg(&script).arg(&page).arg(&stacks).arg(&shell));
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(shown["errors"], Value::Array(Vec::new()), "{shown}");
    let text = shown["text"].as_str().unwrap();
    for name in ["exchange::book::Book::apply", "exchange::wire::decode", "exchange::main"] {
        assert!(text.contains(name), "{name} is not in {text}");
    }
    assert!(shown["title"].as_str().unwrap().contains("heap.folded"), "{shown}");
}
