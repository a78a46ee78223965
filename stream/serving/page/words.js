// What is said in words: numbers, ages, sentences. Nothing here touches the page.

const WHOSE = {global: "in general", per_member: "for this member", per_job: "for this job"};
const LEAST = 0.05; // of the log-odds: what changes the odds by less than 5 % is not worth a word
const DEGRADED = {
  stale: "The service hears nothing new from the broker, and answers with what it knows.",
  other_model_in_force: "The workers score with another model than this service:"
    + " start it with that one.",
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

export const whose = effect => WHOSE[effect] || effect;

/** By how much a contribution to the log-odds multiplies the odds. */
export const factor = contribution => `×${Math.exp(contribution).toFixed(2)}`;

/** What a reason is called: a feature, or all that the global model says where no more is known. */
export const called = reason => reason.feature === "global_score" ? "the global score" : reason.feature;

/** The sentence of an applicant, as [text, is a name] pairs: names are ids of others. */
export function why(reasons) {
  const parts = [];
  const list = (intro, found) => {
    if (!found.length) return;
    parts.push([parts.length ? `; ${intro.toLowerCase()} ` : `${intro} `, false]);
    found.forEach((each, k) => {
      const next = found[k + 1];
      parts.push([k ? " and " : "", false], [called(each), true], [` (${factor(each.contribution)})`, false]);
      if (next?.effect !== each.effect) parts.push([` ${whose(each.effect)}`, false]);
    });
  };
  const told = reasons.filter(each => Math.abs(each.contribution) > LEAST);
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
