// Open a page in Chromium as people do, and print as JSON what is wrong with it.
// usage: node check.mjs CHROMIUM PAGE [FOLDER FOR SCREENSHOTS]
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const [executablePath, page, shots] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

// Runs in the page: what sticks out to the right, where links lead, what is unreadable.
const look = () => {
  const scrolls = (node) => node.closest(".scroll") !== null;
  const wide = [...document.body.querySelectorAll("*")]
    .filter((node) => !scrolls(node) && !node.closest("svg") && node.checkVisibility())
    .filter((node) => node.getBoundingClientRect().right > window.innerWidth + 1)
    .map((node) => `${node.tagName}.${node.className}: ${node.textContent.slice(0, 60)}`);
  const links = [...document.querySelectorAll("a[href]")].map((a) => a.getAttribute("href"));
  const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
  return {
    scrollWidth: document.documentElement.scrollWidth,
    height: document.documentElement.scrollHeight,
    wide,
    deadLinks: links.filter((to) => to.startsWith("#") && !document.getElementById(to.slice(1))),
    outsideLinks: links.filter((to) => !to.startsWith("#")),
    repeatedIds: ids.filter((id, place) => ids.indexOf(id) !== place),
    smallText: [...document.querySelectorAll("svg text")]
      .filter((node) => node.checkVisibility() && node.textContent.trim())
      .filter((node) => node.getBoundingClientRect().height < 9).length,
    headlineBottom: document.querySelector("header").getBoundingClientRect().bottom,
    ground: getComputedStyle(document.body).backgroundColor,
  };
};

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const found = [];
for (const width of [1280, 390]) {
  for (const scheme of ["light", "dark"]) {
    const context = await browser.newContext({
      viewport: { width, height: width === 390 ? 844 : 900 },
      colorScheme: scheme,
      bypassCSP: true,
    });
    const tab = await context.newPage();
    const asked = [];
    const errors = [];
    tab.on("request", (request) => asked.push(request.url()));
    tab.on("console", (message) => message.type() === "error" && errors.push(message.text()));
    tab.on("pageerror", (error) => errors.push(String(error)));
    await tab.goto(pathToFileURL(page).href);
    const name = `${width}-${scheme}`;
    if (shots) {
      await tab.screenshot({ path: `${shots}/${name}-first.png` });
      await tab.screenshot({ path: `${shots}/${name}.png`, fullPage: true });
    }
    // All is looked at, also what is folded.
    await tab.evaluate(() => document.querySelectorAll("details").forEach((d) => (d.open = true)));
    const seen = await tab.evaluate(look);
    await tab.evaluate(axe);
    const { violations } = await tab.evaluate(() => window.axe.run());
    const serious = violations
      .filter(({ impact }) => ["serious", "critical"].includes(impact))
      .map(({ id, nodes }) => `${id} ×${nodes.length}: ${nodes[0].html.slice(0, 160)}`);
    found.push({ name, width, ...seen, requests: asked.slice(1), errors, serious });
    await context.close();
  }
}
await browser.close();
console.log(JSON.stringify(found, null, 1));
