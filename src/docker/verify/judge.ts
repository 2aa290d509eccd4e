/** Makes every check of `tartan docker verify`: facts in, findings out, the gravest first. Pure. */
import type { DockerPlan } from '../settings/docker-plan.js';
import type { DockerFacts } from './facts.js';
import type { Finding } from './finding.js';
import { judgeEngine } from './judge-engine.js';
import { judgeHost } from './judge-host.js';
import { judgeBridge, judgeNetworks } from './judge-networks.js';
import { judgePools } from './judge-pools.js';
import { effectiveOptions, judgeSettings, readDockerdSettings } from './judge-settings.js';

const order: readonly Finding['severity'][] = ['error', 'warning', 'note', 'unchecked'];

export function judgeDocker(plan: DockerPlan, facts: DockerFacts): readonly Finding[] {
  const settings = readDockerdSettings(plan, facts);
  const options = effectiveOptions(settings);
  const state = facts.engine.kind === 'answers' ? facts.engine.state : undefined;
  return sortFindings([
    ...judgeEngine(facts, options),
    ...judgeSettings(plan, facts, settings),
    ...(state
      ? [...judgeBridge(plan, facts, state), ...judgePools(plan, state, settings), ...judgeNetworks(plan, state)]
      : []),
    ...judgeHost(plan, facts, options),
  ]);
}

export function sortFindings(findings: readonly Finding[]): readonly Finding[] {
  return [...findings].sort((a, b) => order.indexOf(a.severity) - order.indexOf(b.severity));
}
