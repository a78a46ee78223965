// Elements of the page from answers. Ids and names are others' input: they become text, never HTML.

import {factor, named, ordinal, percent, signed, span, state, why} from "./words.js";

const PARTS = [["global", "in general"], ["member", "this member"], ["job", "this job"]];
const MOVED_MS = 6000;
const still = matchMedia("(prefers-reduced-motion: reduce)");

export const at = id => document.getElementById(id);

export function make(tag, text, kind) {
  const made = document.createElement(tag);
  if (text != null) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

const id = text => make("bdi", text);

export function show(name, text) {
  at(name).textContent = text || "";
  at(name).hidden = !text;
}

export function drawState(answer) {
  const [well, text] = state(answer);
  if (at("state").textContent !== text) at("state").textContent = text;
  at("state").classList.toggle("warn", !well);
}

/** Jobs, as buttons; ``chosen``: the one that is looked at. */
export function drawJobs(jobs, chosen, choose) {
  keyed(at("job-list"), jobs, job => job.job_id, () => {
    const button = make("button");
    button.append(make("b"), make("span", "", "dim"));
    button.addEventListener("click", () => choose(button.parentElement.dataset.key));
    return button;
  }, (item, job) => {
    const [name, open] = item.firstChild.children;
    if (!name.firstChild) name.append(id(job.job_id));
    const of = job.applicants > job.open ? ` of ${job.applicants.toLocaleString("en")}` : "";
    open.textContent = `${job.open.toLocaleString("en")}${of} open`;
    mark(item.firstChild, job.job_id === chosen);
  });
}

/** The ranking; rows glide to where they now stand, and say for a while how they got there. What the
 * reader has changed, ``by`` or ``top``, is no move. */
export function drawApplicants(list, by, top, chosen, choose) {
  const most = scale(list.applicants);
  const before = new Map([...at("applicants").children].map(li => [li.dataset.key, {
    top: li.getBoundingClientRect().top, rank: +li.dataset.rank}]));
  const was = at("applicants").dataset;
  const first = was.job !== list.job_id, again = !first && was.by === by && +was.top === top;
  const entered = before.size === +was.of ? "new" : "▲"; // it may have come from further down
  Object.assign(was, {job: list.job_id, by, top, of: list.of});
  keyed(at("applicants"), list.applicants, each => each.application_id, newRow(choose),
    (item, each) => {
      const [rank, who, parts, chance, text] = item.firstChild.children;
      if (!again) item.dataset.since = 0;
      moved(item, rank, each.rank, again ? before.get(each.application_id)?.rank : each.rank, entered);
      rank.firstChild.textContent = each.rank;
      const applied = span(list.as_of_ms - each.application_time_ms);
      who.replaceChildren(make("b"), make("small", `applied ${applied} ago`));
      who.firstChild.append(id(each.member_id));
      lanes(parts, each.parts, most);
      const [large, small, words] = by === "probability"
        ? [each.probability, each.probability_now, "now"]
        : [each.probability_now, each.probability, "at first"];
      chance.firstChild.textContent = percent(large);
      chance.lastChild.textContent = `${words} ${percent(small)}`;
      sentence(text, each.reasons);
      mark(item.firstChild, each.application_id === chosen);
    });
  if (!first && !still.matches) glide(at("applicants"), before);
}

const newRow = choose => () => {
  const button = make("button");
  const rank = make("span", null, "rank"), chance = make("span", null, "chance");
  rank.append(make("span"), make("small"));
  chance.append(make("b"), make("small"));
  button.append(rank, make("span", null, "who"), make("span", null, "parts"), chance,
    make("span", null, "why"));
  button.addEventListener("click", () => choose(button.parentElement.dataset.key));
  return button;
};

function moved(item, shown, rank, was, entered) {
  const now = Date.now();
  if (was !== rank) {
    item.dataset.since = now;
    const [kind, text] = was == null ? [entered === "new" ? "new" : "up", entered]
      : was > rank ? ["up", `▲ ${was - rank}`] : ["down", `▼ ${rank - was}`];
    shown.className = `rank ${kind}`;
    shown.lastChild.textContent = text;
  } else if (now - (item.dataset.since || 0) > MOVED_MS) {
    shown.className = "rank";
    shown.lastChild.textContent = "";
  }
  item.dataset.rank = rank;
}

function glide(list, before) {
  const going = [];
  for (const item of list.children) {
    const was = before.get(item.dataset.key);
    const by = was ? was.top - item.getBoundingClientRect().top : 0;
    if (by) going.push([item, by]);
  }
  for (const [item, by] of going) {
    item.animate([{transform: `translateY(${by}px)`}, {transform: "none"}],
      {duration: 450, easing: "cubic-bezier(.2, 0, 0, 1)"});
  }
}

function scale(applicants) {
  const most = Math.max(0.5, ...applicants.flatMap(each => Object.values(each.parts).map(Math.abs)));
  return Math.ceil(2 * most) / 2; // in steps, so that bars do not breathe with every answer
}

function lanes(box, parts, most) {
  if (!box.firstChild) {
    box.append(make("span", "", "unseen"), ...PARTS.map(([name]) => lane(name)));
  }
  box.firstChild.textContent = PARTS.map(([name, words]) => `${words} ${signed(parts[name])}`)
    .join(", ") + " log-odds";
  PARTS.forEach(([name], k) => fill(box.children[k + 1], parts[name], most));
}

function lane(kind) {
  const made = make("span", null, "lane");
  made.setAttribute("aria-hidden", "true");
  made.append(make("i", null, kind));
  return made;
}

/** Draw a bar from the middle. */
function fill(made, value, most) {
  const share = Math.min(Math.abs(value) / most, 1) * 50;
  made.firstChild.style.width = `${share}%`;
  made.firstChild.style.left = `${value < 0 ? 50 - share : 50}%`;
}

function sentence(box, reasons) {
  box.replaceChildren(...why(reasons).map(([text, name]) => {
    if (!name) return document.createTextNode(text);
    const made = make("em");
    made.append(id(text));
    return made;
  }));
}

/** Where one applicant stands among those of the job. */
export function drawStanding(each) {
  at("who").replaceChildren(id(each.member_id));
  const rank = make("p", null, "big");
  rank.append(make("b", ordinal(each.rank)), make("span", `of ${each.of.toLocaleString("en")}`));
  const strip = make("div", null, "strip");
  strip.setAttribute("role", "img");
  strip.setAttribute("aria-label", `percentile ${each.percentile.toFixed(0)} of 100`);
  strip.append(make("i"));
  strip.firstChild.style.left = `${each.percentile}%`;
  const ends = make("div", null, "ends");
  ends.append(make("span", "last"), make("span", "first"));
  const level = make("p", `Level with or ahead of ${each.percentile.toFixed(0)} % of those who are open.`);
  at("standing").replaceChildren(rank, level, strip, ends, chances(each), make("h3", "How it adds up"),
    sum(each), ...reasons("What counts for it", each.for, each),
    ...reasons("What counts against it", each.against, each), application(each));
}

function chances(each) {
  const made = make("dl");
  const spread = [-1.28, 1.28].map(z => percent(sigmoid(each.log_odds + z * each.standard_deviation)));
  const line = (words, more, value) => {
    const name = make("dt", words);
    name.append(make("small", more));
    made.append(name, make("dd", percent(value)));
  };
  line("chance of an answer", `within the window, as at application; ${spread[0]} to ${spread[1]}`
    + " is likely, as far as what was learned goes", each.probability);
  line("that one still comes", `after ${span(each.as_of_ms - each.application_time_ms)}`
    + " without an answer", each.probability_now);
  return made;
}

const sigmoid = x => 1 / (1 + Math.exp(-x));

function sum(each) {
  const made = make("div", null, "sum");
  const most = scale([each]);
  const known = {global: true, member: each.member_known, job: each.job_known};
  for (const [name, words] of PARTS) {
    const bar = lane(name);
    fill(bar, each.parts[name], most);
    const said = make("span", words);
    if (!known[name]) said.append(make("small", "nothing learned yet"));
    made.append(said, bar, make("b", signed(each.parts[name])));
  }
  const said = make("span", "together");
  said.append(make("small", "in log-odds"));
  made.append(said, make("span"), make("b", signed(each.log_odds)));
  return made;
}

function reasons(title, found, each) {
  if (!found.length) return [make("h3", title), make("p", "Nothing yet.", "dim")];
  const most = Math.max(...[...each.for, ...each.against].map(one => Math.abs(one.contribution)));
  const list = make("ul", null, "reasons");
  list.append(...found.map(reason => {
    const item = make("li"), text = make("span"), name = make("em");
    const [called, owner] = named(reason);
    name.append(id(called));
    text.append(name, owner);
    const bar = lane({per_member: "member", per_job: "job"}[reason.effect] || "global");
    bar.firstChild.style.width = `${100 * Math.abs(reason.contribution) / most}%`;
    item.append(text, make("span", `odds ${factor(reason.contribution)}`), bar);
    return item;
  }));
  return [make("h3", title), list];
}

function application(each) {
  const made = make("p", "Application ", "dim");
  made.append(id(each.application_id), ` to job `, id(each.job_id), `, model ${each.model_version}.`);
  made.style.marginTop = "22px";
  return made;
}

function mark(button, chosen) {
  if (chosen) button.setAttribute("aria-current", "true");
  else button.removeAttribute("aria-current");
}

/** Make a list's items those of the data, in its order; an item of a key stays the same element. */
function keyed(list, data, key, create, update) {
  const known = new Map([...list.children].map(item => [item.dataset.key, item]));
  const focused = list.contains(document.activeElement) ? document.activeElement : null;
  data.forEach((each, place) => {
    let item = known.get(key(each));
    if (item) known.delete(key(each));
    else {
      item = make("li");
      item.dataset.key = key(each);
      item.append(create());
    }
    if (list.children[place] !== item) list.insertBefore(item, list.children[place] || null);
    update(item, each);
  });
  known.forEach(item => item.remove());
  // An element that is moved loses the focus.
  if (focused && focused.isConnected && document.activeElement !== focused) {
    focused.focus({preventScroll: true});
  }
}
