// What keeps somebody from reading or using the page, as a list of texts.
(() => {
  const faults = [];
  const isShown = (element) => element.checkVisibility() && element.getClientRects().length > 0;
  const all = (selector) => [...document.querySelectorAll(selector)].filter(isShown);
  const short = (element) => element.outerHTML.slice(0, 120);

  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) {
    faults.push(`it scrolls sideways: ${root.scrollWidth} in ${root.clientWidth}`);
  }
  if (!root.lang) faults.push("no language");
  if (!document.title) faults.push("no title");
  if (all("h1").length !== 1) faults.push("not one h1");
  if (document.querySelectorAll("main, header").length !== 2) faults.push("no landmarks");
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  for (const id of ids.filter((id, index) => ids.indexOf(id) !== index)) faults.push(`two #${id}`);
  for (const element of document.querySelectorAll("[aria-labelledby]")) {
    const id = element.getAttribute("aria-labelledby");
    if (!document.getElementById(id)) faults.push(`no #${id} to be named by`);
  }
  for (const element of all("button, a, input, [role=img], section")) {
    const by = document.getElementById(element.getAttribute("aria-labelledby"));
    const label = element.labels?.[0]?.textContent;
    const name = element.getAttribute("aria-label") ?? by?.textContent ?? label;
    if (!(name ?? element.textContent).trim()) faults.push(`without a name: ${short(element)}`);
  }
  for (const element of all("a")) {
    if (!element.href) faults.push(`a link to nowhere: ${short(element)}`);
  }
  for (const element of document.querySelectorAll("[onclick], [tabindex]")) {
    if (element.tabIndex > 0 || element.onclick) faults.push(`its own order: ${short(element)}`);
  }
  for (const table of document.querySelectorAll("table")) {
    if (!table.caption) faults.push(`without a caption: ${short(table)}`);
    for (const head of table.querySelectorAll("th")) {
      if (!head.scope) faults.push(`without a scope: ${short(head)}`);
    }
  }
  for (const button of all("button, input")) {
    const { height } = button.getBoundingClientRect();
    if (height < 24) faults.push(`too small to be hit: ${short(button)}`);
  }

  // WCAG 2.2, 1.4.3: 4.5 to 1, or 3 to 1 where the text is large.
  const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = colour.map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, alpha = 1] = numbers(getComputedStyle(at).backgroundColor);
      if (alpha === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    const isHidden = !isShown(element) || element.closest("noscript, .skip, :disabled");
    if (!texts.currentNode.data.trim() || isHidden) continue;
    const style = getComputedStyle(element);
    const pair = [numbers(style.color).slice(0, 3), behind(element)].map(light);
    const contrast = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (contrast < (isLarge ? 3 : 4.5)) {
      faults.push(`contrast ${contrast.toFixed(2)}: ${texts.currentNode.data.trim().slice(0, 40)}`);
    }
  }
  return faults;
})();
