// What is said in words: numbers, ages, sentences. Nothing here touches the page.

const WHOSE = {global: "in general", per_member: "for this member", per_job: "for this job"};
const LEAST = 0.05; // of the log-odds: what changes the odds by less than 5 % is not worth a word
const USUAL = {
  global: "the base rate", per_member: "the member's own record", per_job: "the job's own record"};
const DEGRADED = {
  stale: "The service hears nothing new from the broker, and answers with what it knows.",
  other_model_in_force: "Workers score with a model that this service does not have:"
    + " start it with the --model that they were started with.",
};

export const percent = p => {
  const of100 = 100 * p;
  return of100 > 0 && of100 < 0.95 ? "<\u00a01\u00a0%" : of100 > 99.05 && of100 < 100 ? ">\u00a099\u00a0%"
    : `${of100.toFixed(0)}\u00a0%`;
};

export const signed = x => `${x < -0.005 ? "−" : x > 0.005 ? "+" : "±"}${Math.abs(x).toFixed(2)}`;

export function span(ms) {
  const s = Math.max(ms, 0) / 1000;
  const [n, unit] = s < 90 ? [s, "second"] : s < 5400 ? [s / 60, "minute"]
    : s < 129600 ? [s / 3600, "hour"] : [s / 86400, "day"];
  const whole = Math.round(n);
  return `${whole} ${unit}${whole === 1 ? "" : "s"}`;
}

export function ordinal(n) {
  const last = n % 100 > 10 && n % 100 < 14 ? 0 : n % 10;
  return n + (["th", "st", "nd", "rd"][last] || "th");
}

export const count = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

const whose = effect => WHOSE[effect] || effect;

/** By how much a contribution to the log-odds multiplies the odds. */
export const factor = contribution => `×${Math.exp(contribution).toFixed(2)}`;

/** Name and owner of a reason; a column that is 1 for everybody says what is usual, not what is special. */
export function named(reason) {
  if (reason.feature === "global_score") return ["the global score", ""];
  const usual = reason.feature === "intercept" && USUAL[reason.effect];
  return usual ? [usual, ""] : [reason.feature, ` ${whose(reason.effect)}`];
}

/** The sentence of an applicant, as [text, is a name] pairs: names are ids of others. */
export function why(reasons) {
  const parts = [];
  const list = (intro, found) => {
    if (!found.length) return;
    parts.push([parts.length ? `; ${intro.toLowerCase()} ` : `${intro} `, false]);
    found.forEach((each, k) => {
      const [name, owner] = named(each);
      const shared = k + 1 < found.length && named(found[k + 1])[1] === owner;
      parts.push([k ? " and " : "", false], [name, true],
        [` (${factor(each.contribution)})${shared ? "" : owner}`, false]);
    });
  };
  const told = reasons.filter(each => Math.abs(each.contribution) > LEAST
    && !(each.effect === "global" && each.feature === "intercept"));
  list("Raised by", told.filter(each => each.contribution > 0).slice(0, 2));
  list("Lowered by", told.filter(each => each.contribution < 0).slice(0, 2));
  if (!parts.length) return [["Nothing tells this applicant from others yet.", false]];
  return [...parts, [".", false]];
}

/** How good what is shown is: [all is well, text]. */
export function state(answer) {
  const age = answer.staleness_s == null ? "Of unknown age."
    : answer.staleness_s < 5 ? "Up to date." : `As of ${span(1000 * answer.staleness_s)} ago.`;
  const said = answer.degraded.map(reason => reason.startsWith("gate_shut:")
    ? `What was learned ${whose(reason.slice(10)).replace("for this ", "of each ")} is held back in part,`
      + " because it made scores worse."
    : DEGRADED[reason] || reason);
  return [!said.length, [...said, age].join(" ")];
}
