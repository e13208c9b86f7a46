// Opens a report in a browser without a network, light and dark, wide and narrow, with and without scripts;
// prints what it saw as JSON. Arguments: packages, browser, page, document, folder for pictures.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { isDeepStrictEqual } from "node:util";

const [packages, executablePath, page, json, pictures] = process.argv.slice(2);
const require = createRequire(`${packages}/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core"), "utf8");
const wanted = JSON.parse(readFileSync(json, "utf8"));
const url = pathToFileURL(page).href;

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const seen = { views: [], figures: 0, wrong: [], embedded: false, text: "", sought: 0 };
const views = [["light", 1280], ["dark", 1280], ["light", 390], ["dark", 390]];
for (const [colorScheme, width] of views) {
  const context = await browser.newContext({ offline: true, colorScheme, viewport: { width, height: 900 } });
  const tab = await context.newPage();
  const view = { colorScheme, width, requests: [], said: [], violations: [] };
  tab.on("request", (request) => view.requests.push(request.url()));
  tab.on("console", (message) => view.said.push(message.text()));
  tab.on("pageerror", (error) => view.said.push(String(error)));
  tab.on("dialog", (dialog) => { view.said.push(`dialog ${dialog.message()}`); dialog.dismiss(); });
  await tab.goto(url);
  await tab.waitForSelector("html[data-ready=yes]", { timeout: 10_000 });
  await tab.screenshot({ path: `${pictures}/${colorScheme}-${width}.png`, fullPage: true });
  view.wider = await tab.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  await tab.evaluate(() => { for (const fold of document.querySelectorAll("details")) fold.open = true; });
  view.violations = await tab.evaluate(async (source) => {
    (0, eval)(source);
    const found = await globalThis.axe.run(document, { resultTypes: ["violations"] });
    return found.violations.map((of) => `${of.id}: ${of.nodes[0].html.slice(0, 200)} (${of.nodes.length}) ${of.nodes[0].failureSummary}`);
  }, axe).catch((error) => [`axe: ${error}`]);
  if (width === 1280 && colorScheme === "light") {
    const found = await tab.evaluate(() => {
      const at = [...document.querySelectorAll("[data-at]")].map((of) => ({
        at: of.dataset.at, value: of.getAttribute("value"), text: of.textContent,
      }));
      const scripts = [...document.scripts].filter((of) => of.type !== "application/json").length;
      const strange = document.querySelectorAll("img, iframe, object, embed, script[src]").length;
      return { at, scripts, strange, embedded: JSON.parse(document.getElementById("document").textContent) };
    });
    seen.embedded = isDeepStrictEqual(found.embedded, wanted);
    seen.scripts = found.scripts;
    seen.strange = found.strange;
    for (const { at, value, text } of found.at) {
      const keys = at.split("/").slice(1).map((key) => key.replaceAll("~1", "/").replaceAll("~0", "~"));
      const real = keys.reduce((of, key) => of?.[key], wanted);
      seen.figures += 1;
      const same = typeof real === "number" ? Number(value) === real
        : typeof real === "boolean" ? text === (real ? "yes" : "no")
        : text.replace(/^[✓✗?] /u, "") === real;
      if (!same) seen.wrong.push(`${at}: ${text} (${value}) for ${JSON.stringify(real)}`);
    }
    // The cursor over the pictures says what the document holds.
    const plot = tab.locator(".plot").first();
    if (await plot.count()) {
      const picture = plot.locator("svg[role=img]");
      await picture.scrollIntoViewIfNeeded();
      const box = await picture.boundingBox();
      await tab.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
      seen.cursor = await plot.locator("output").textContent();
    }
  }
  seen.views.push(view);
  await context.close();
}
const context = await browser.newContext({ offline: true, javaScriptEnabled: false });
const tab = await context.newPage();
await tab.goto(url);
seen.text = await tab.locator("body").innerText();
await browser.close();
process.stdout.write(JSON.stringify(seen));
