/** The truth about this host in one line, for the first line of the status and for `systemctl status`. */
import type { PeerWatched, Phase } from './status.js';

export interface PeerCounts {
  readonly total: number;
  /** By state; undefined while nothing watches the peers. */
  readonly states: Readonly<Record<PeerWatched['state'], number>> | undefined;
}

export interface SummaryFacts {
  readonly phase: Phase;
  /** Works as promised. */
  readonly ready: boolean;
  readonly problems: readonly string[];
  readonly peers: PeerCounts;
  /** Since the store answered; null when it has not. */
  readonly answeredSeconds: number | null;
}

/** Up to this age an answer of the store is none worth a new line. */
const freshSeconds = 30;
/** Characters of the first problem; the others are counted. */
const maxProblem = 240;

const waits: Readonly<Record<Exclude<Phase, 'ready'>, string>> = {
  starting: 'starting',
  'waiting-for-network': 'waits for the network document, and Docker with it',
  'waiting-for-lease': 'waits for a lease, and Docker with it',
  configuring: 'configures the host, Docker waits',
  lost: 'the lease is lost, traffic is stopped',
  stopping: 'stopping',
};

/** @param ages `coarse`: the text stays the same as long as nothing happens, for who logs each new one */
export function summarize(facts: SummaryFacts, ages: 'exact' | 'coarse' = 'exact'): string {
  const { phase, ready, problems, peers, answeredSeconds } = facts;
  if (phase !== 'ready') return `${waits[phase]}${causeOf(problems)}`;
  const state = ready && problems.length === 0 ? 'ready' : 'impaired';
  return [state, peersText(peers), storeText(answeredSeconds, ages)].join(', ') + causeOf(problems);
}

function causeOf([first, ...more]: readonly string[]): string {
  if (first === undefined) return '';
  const text = first.length > maxProblem ? `${first.slice(0, maxProblem)}...` : first;
  return `: ${text}${more.length > 0 ? ` (and ${more.length} more)` : ''}`;
}

function peersText({ total, states }: PeerCounts): string {
  if (total === 0) return 'no peers';
  if (!states) return total === 1 ? '1 peer' : `${total} peers`;
  const { up, unknown, unwatched } = states;
  // The rest of the peers is silent.
  const notes = [
    ...(unknown > 0 ? [`${unknown} not heard yet`] : []),
    ...(unwatched > 0 ? [`${unwatched} cannot be asked`] : []),
  ];
  const answer = `${up} of ${total} ${total === 1 ? 'peer' : 'peers'} ${up === 1 ? 'answers' : 'answer'}`;
  return [answer, ...notes].join(', ');
}

function storeText(seconds: number | null, ages: 'exact' | 'coarse'): string {
  if (seconds === null) return 'etcd has not answered';
  if (ages === 'coarse' && seconds <= freshSeconds) return 'etcd answers';
  return `etcd answered ${ageText(seconds, ages === 'coarse' ? 10 : 1)} ago`;
}

/** @param step the seconds to which an age of less than two minutes is rounded down */
function ageText(seconds: number, step: number): string {
  if (seconds < 120) return `${Math.floor(seconds / step) * step} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h`;
}
