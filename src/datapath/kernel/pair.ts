/**
 * By which engine the packets to one peer go, as a reducer of what is heard on the kernel path. A pair goes by the kernel
 * only after a question was answered over that very path, two seconds later so that no flow is reordered, and leaves it
 * again after five seconds without an answer. What the peer sends proves nothing: it may be that only our packets are lost.
 * Pure; times are CLOCK_BOOTTIME milliseconds.
 */
export type PairEngine = 'user' | 'kernel';

export interface Pair {
  readonly engine: PairEngine;
  /** Of the question that was asked last. */
  readonly sequence: number;
  readonly askedMs: number;
  /** Questions since the last answer, or since the last attempt was given up. */
  readonly unanswered: number;
  /** When the first question was asked that had no answer; undefined when the last one had. */
  readonly silentSinceMs: number | undefined;
  /** When a pair that has answered goes by the kernel; until then its flows are recorded. */
  readonly movesMs: number | undefined;
  /** A pair that goes by user space is not asked before. */
  readonly retryMs: number;
  /** Attempts in a row that had no answer. */
  readonly failures: number;
  /** It must answer, although no data passes: an earlier daemon had it in the kernel. */
  readonly mustAnswer: boolean;
  /** Since when user space does not hear the peer either; undefined while it does. */
  readonly awaySinceMs: number | undefined;
}

/** What is known of a pair at one look. */
export interface PairEvidence {
  readonly nowMs: number;
  /** Data passed in the last ten seconds. */
  readonly isActive: boolean;
  /** Of the last answer on the kernel path; undefined: there was none. */
  readonly answeredSequence: number | undefined;
  /** When user space heard the peer last. */
  readonly userHeardMs: number | undefined;
}

/** A question may be answered until so many later ones were asked. */
const lateAnswers = 8;
const askEachMs = 1_000;
const silentMs = 5_000;
/** A question that is lost says nothing yet. */
const silentQuestions = 4;
const attemptQuestions = 3;
/** After the first attempt without an answer; each further one doubles it. A peer that starts may not know this host yet. */
const retry = { firstMs: 5_000, mostMs: 60_000 } as const;
/** What is under way by user space arrives before what follows by the kernel (NativeKernelPath.recordFlows). */
const recordMs = 2_000;
/** The data process asks a peer with data on the way each five seconds. */
const awayMs = 15_000;

/** @param sequence any number of 32 bits; the questions count on from it */
export function newPair(engine: PairEngine, sequence: number): Pair {
  return {
    engine,
    sequence,
    askedMs: -Infinity,
    unanswered: 0,
    silentSinceMs: undefined,
    movesMs: undefined,
    retryMs: -Infinity,
    failures: 0,
    mustAnswer: engine === 'kernel',
    awaySinceMs: undefined,
  };
}

/** @returns the same pair when nothing is new */
export function lookAtPair(pair: Pair, evidence: PairEvidence): Pair {
  const heard = isAnswered(pair, evidence) ? takeAnswer(pair, evidence) : pair;
  return heard.engine === 'kernel' ? lookAtKernel(heard, evidence) : lookAtUser(heard, evidence);
}

function takeAnswer(pair: Pair, { nowMs }: PairEvidence): Pair {
  const heard = {
    ...pair,
    unanswered: 0,
    silentSinceMs: undefined,
    mustAnswer: false,
    awaySinceMs: undefined,
    failures: 0,
  };
  return pair.engine === 'kernel' ? heard : { ...heard, movesMs: pair.movesMs ?? nowMs + recordMs };
}

export function isQuestionDue(pair: Pair, { nowMs, isActive }: PairEvidence): boolean {
  if (nowMs - pair.askedMs < askEachMs) return false;
  return (isActive || pair.mustAnswer) && (pair.engine === 'kernel' || nowMs >= pair.retryMs);
}

export function askPair(pair: Pair, nowMs: number): Pair {
  return {
    ...pair,
    sequence: (pair.sequence + 1) >>> 0,
    askedMs: nowMs,
    unanswered: pair.unanswered + 1,
    silentSinceMs: pair.silentSinceMs ?? nowMs,
  };
}

/** @returns undefined when it goes by the kernel */
export function describePair(pair: Pair, port: number, nowMs: number): string | undefined {
  if (pair.engine === 'kernel') return undefined;
  if (pair.movesMs !== undefined) return 'it has answered, and is about to go by the kernel';
  if (pair.silentSinceMs === undefined) return 'no data has passed yet to try the kernel engine with';
  const seconds = Math.max(1, Math.round((nowMs - pair.silentSinceMs) / 1000));
  return `no answer on UDP ${port} for ${seconds < 120 ? `${seconds} s` : `${Math.floor(seconds / 60)} min`}`;
}

function isAnswered({ sequence, unanswered }: Pair, { answeredSequence }: PairEvidence): boolean {
  return (
    unanswered > 0 &&
    answeredSequence !== undefined &&
    (sequence - answeredSequence) >>> 0 < Math.min(unanswered, lateAnswers)
  );
}

function lookAtKernel(pair: Pair, { nowMs, userHeardMs = -Infinity }: PairEvidence): Pair {
  const { unanswered, silentSinceMs } = pair;
  if (silentSinceMs === undefined || unanswered < silentQuestions || nowMs - silentSinceMs < silentMs) return pair;
  const awaySinceMs = userHeardMs <= silentSinceMs ? silentSinceMs : undefined;
  return { ...giveUp(pair, nowMs), engine: 'user', mustAnswer: false, awaySinceMs };
}

function giveUp(pair: Pair, nowMs: number): Pair {
  const waitMs = Math.min(retry.mostMs, retry.firstMs * 2 ** pair.failures);
  return { ...pair, unanswered: 0, movesMs: undefined, retryMs: nowMs + waitMs, failures: pair.failures + 1 };
}

function lookAtUser(pair: Pair, { nowMs, isActive, userHeardMs = -Infinity }: PairEvidence): Pair {
  if (pair.movesMs !== undefined && nowMs >= pair.movesMs && pair.unanswered === 0)
    return { ...pair, engine: 'kernel', movesMs: undefined };
  // A peer that is there again is asked at once.
  if (pair.awaySinceMs !== undefined && userHeardMs > pair.awaySinceMs)
    return { ...pair, awaySinceMs: undefined, unanswered: 0, retryMs: nowMs };
  if (pair.unanswered >= attemptQuestions && nowMs - pair.askedMs >= askEachMs) return giveUp(pair, nowMs);
  const isAway = isActive && nowMs - userHeardMs >= awayMs;
  return isAway && pair.awaySinceMs === undefined ? { ...pair, awaySinceMs: nowMs } : pair;
}
