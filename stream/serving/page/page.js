// What is looked at, and asking for it again and again. The address's fragment says what is looked at;
// it never leaves the browser.

import {at, drawApplicants, drawJobs, drawStanding, drawState, show} from "./draw.js";
import {count} from "./words.js";

const POLL_MS = 1500;
const TROUBLE_MS = 4000;
const MOST = 200;
const JOBS = 50;

let token = null; // in memory only
let looked = {job: null, application: null};
let top = 20;
let asking = null;
let timer = 0;

class Refusal extends Error {
  constructor(status, problem) {
    super(problem.message);
    this.status = status;
    this.reason = problem.reason;
  }
}

async function ask(path, query) {
  const headers = token ? {Authorization: `Bearer ${token}`} : {};
  const limit = AbortSignal.any([asking.signal, AbortSignal.timeout(8000)]);
  const answer = await fetch(`${path}?${new URLSearchParams(query)}`,
    {cache: "no-store", credentials: "omit", headers, signal: limit});
  const said = await answer.json();
  if (!answer.ok) throw new Refusal(answer.status, said);
  return said;
}

const ofJob = job => `v1/jobs/${encodeURIComponent(job)}/applicants`;

/** Ask for all that is shown; after a while again. */
async function renew() {
  clearTimeout(timer);
  asking?.abort();
  if (document.hidden) return;
  const mine = asking = new AbortController();
  const {job, application} = looked;
  let wait = POLL_MS;
  try {
    const found = await Promise.all([
      ask("v1/jobs", {search: at("search").value.trim(), limit: JOBS}),
      job === null ? null : ask(ofJob(job), {top, by: at("by").value}),
      application === null ? null
        : ask(`${ofJob(job)}/${encodeURIComponent(application)}`, {by: at("by").value}).catch(gone),
    ]);
    if (mine !== asking) return;
    draw(...found);
  } catch (error) {
    if (mine !== asking) return;
    wait = TROUBLE_MS;
    trouble(error);
  }
  timer = setTimeout(renew, wait);
}

function gone(error) {
  if (error.reason === "not_open") return error;
  throw error;
}

function draw(jobs, ranking, one) {
  show("notice", "");
  at("token").hidden = true;
  drawJobs(jobs.jobs, looked.job, job => look({job, application: null}));
  const search = at("search").value.trim();
  show("job-none", jobs.jobs.length ? "" : search ? `No job has “${search}” in its id.`
    : "No job has applicants yet. They come with the first application: is a worker running, with"
      + " [applicants] enabled = true?");
  if (ranking) {
    drawState(ranking);
    drawRanking(ranking);
  } else if (at("state").textContent === "…" || at("state").className) {
    at("state").textContent = "Connected.";
    at("state").className = "";
  }
  if (one instanceof Refusal) {
    at("standing").replaceChildren();
    show("view-none", `This application is no longer in the ranking: ${one.message}.`);
  } else if (one) {
    show("view-none", "");
    drawStanding(one);
  }
}

function drawRanking(ranking) {
  const some = ranking.applicants.length > 0;
  drawApplicants(ranking, at("by").value, top, looked.application,
    application => look({...looked, application}));
  at("legend").hidden = !some;
  at("more").hidden = ranking.of <= ranking.applicants.length || top >= MOST;
  const told = ranking.applicants.length < ranking.of ? `, the first ${ranking.applicants.length} below` : "";
  at("job-about").textContent = some
    ? `${count(ranking.of, "applicant waits", "applicants wait")} for an answer${told}.` : "";
  show("ranking-none", some ? "" : "Nobody waits for an answer here: all were answered or declined, their"
    + " time is over, or nobody has applied yet. Choose another job.");
}

function trouble(error) {
  at("state").className = "warn";
  if (error.status === 401) {
    at("token-wrong").textContent = token ? "The service does not know that token." : "";
    at("state").textContent = "A token is needed.";
    if (at("token").hidden) {
      at("token").hidden = false;
      at("token-text").focus();
    }
    return;
  }
  at("state").textContent = "Not up to date.";
  show("notice", error.reason === "no_applicants"
    ? "This service holds no applicants. Put enabled = true under [applicants] into the policy file of the"
      + " workers and of the service, and start them again."
    : error.reason === "not_ready"
    ? `The service is getting ready (${error.message}). This page goes on by itself.`
    : error.reason === "overload" ? "The service has too much to do. This page asks again in a moment."
    : error instanceof Refusal ? `The service refuses: ${error.message}.`
    : "The service does not answer. What is below is old; this page keeps asking.");
}

/** Look at something else; the address says so, and the browser's way back leads here again. */
function look(next) {
  const said = new URLSearchParams();
  if (next.job !== null) said.set("job", next.job);
  if (next.application !== null) said.set("application", next.application);
  location.hash = said;
}

function readAddress(first) {
  const said = new URLSearchParams(location.hash.slice(1));
  if (said.has("token")) {
    token = said.get("token");
    said.delete("token");
    history.replaceState(null, "", `${location.pathname}#${said}`);
  }
  const before = looked;
  const job = said.get("job");
  looked = {job, application: job === null ? null : said.get("application")};
  const level = job === null ? "jobs" : looked.application === null ? "ranking" : "view";
  document.body.dataset.level = level;
  document.title = job === null ? "hearback: applicants" : `${job} · hearback`;
  if (job !== before.job || first) {
    top = 20;
    at("job-name").replaceChildren(document.createElement("bdi"));
    at("job-name").firstChild.textContent = job ?? "Choose a job";
    document.querySelector(".by").hidden = job === null;
    at("applicants").replaceChildren();
    delete at("applicants").dataset.job; // the same job later: nobody has moved
    at("job-about").textContent = "";
    at("legend").hidden = at("more").hidden = true;
    show("ranking-none", job === null
      ? "A job's applicants stand here, the likeliest to hear back first." : "");
  }
  if (looked.application !== before.application || job !== before.job) {
    at("standing").replaceChildren();
    at("who").textContent = "Where one stands";
    show("view-none", "Choose an applicant to see the rank, and what counts for and against.");
  }
  // Where one panel takes the other's place, the keyboard goes along.
  const panel = {ranking: at("ranking"), view: at("view")}[level];
  if (!first && panel && !panel.contains(document.activeElement) && !document.activeElement?.offsetParent) {
    panel.focus({preventScroll: true});
  }
  renew();
}

/** Up and down go through a list's buttons. */
function walk(event) {
  const step = {ArrowDown: 1, ArrowUp: -1}[event.key];
  const item = event.target.closest("li");
  const next = step === 1 ? item?.nextElementSibling : item?.previousElementSibling;
  if (step && next) {
    event.preventDefault();
    next.firstChild.focus();
  }
}

addEventListener("hashchange", () => readAddress(false));
document.addEventListener("visibilitychange", renew);
at("search").addEventListener("input", renew);
at("by").addEventListener("change", renew);
at("more").addEventListener("click", () => { top = Math.min(2 * top, MOST); renew(); });
at("job-list").addEventListener("keydown", walk);
at("applicants").addEventListener("keydown", walk);
at("token").addEventListener("submit", event => {
  event.preventDefault();
  token = at("token-text").value.trim();
  at("token-text").value = "";
  renew();
});
for (const back of document.querySelectorAll(".back")) {
  back.addEventListener("click", () => look(
    back.dataset.to === "jobs" ? {job: null, application: null} : {...looked, application: null}));
}
addEventListener("keydown", event => {
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    at("search").focus();
  } else if (event.key === "Escape" && looked.application !== null && !typing) {
    look({...looked, application: null});
  }
});
readAddress(true);
