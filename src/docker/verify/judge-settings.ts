/** Judges where Docker gets its settings: flags of the environment file, daemon.json, the unit; and which conflict. */
import { isTartanError, messageOf } from '../../lib/errors.js';
import { formatBridgeAddress, samePrefix } from '../../model/ip.js';
import {
  conflictsWithFile,
  conflictsWithFlags,
  placesOfOthers,
  yieldPools,
  type Conflict,
} from '../settings/conflicts.js';
import { dockerFlags, envOptions, bridgeSettings, settingsFile, type DockerPlan } from '../settings/docker-plan.js';
import {
  combineFlags,
  parseDockerdFlags,
  readDaemonOptions,
  type DockerdKey,
  type DockerdOptions,
} from '../settings/dockerd-options.js';
import { engineMajor } from '../engine.js';
import { engineOptions, gateFile, poolOptions } from '../settings/settings.js';
import { factValue } from '../../lib/fact.js';
import type { DockerFacts } from './facts.js';
import { dropInPlace, finding, restartDocker, uncheckedFact, type Finding } from './finding.js';

const plannedKeys = ['bip', 'mtu', 'ip-masq'] as const satisfies readonly DockerdKey[];

export interface DockerdSettings {
  /** The flags of the running dockerd, else of the one that would be started. */
  readonly flags: DockerdOptions;
  /** The members of daemon.json. */
  readonly file: DockerdOptions;
  /** Why dockerd cannot read daemon.json. */
  readonly broken: string | undefined;
  readonly runs: boolean;
}

export function readDockerdSettings(plan: DockerPlan, facts: DockerFacts): DockerdSettings {
  const running = factValue(facts.commandLine);
  const planned = readsEnvFile(plan, facts)
    ? envOptions(factValue(facts.envFile) ?? '')
    : new Map<DockerdKey, string>();
  return {
    flags: running ? combineFlags(parseDockerdFlags(running)) : planned,
    runs: running !== undefined,
    ...readFile(facts.daemonJson),
  };
}

function readFile({ path, text }: DockerFacts['daemonJson']): Pick<DockerdSettings, 'file' | 'broken'> {
  try {
    return { file: readDaemonOptions(factValue(text), path), broken: undefined };
  } catch (error) {
    if (!isTartanError(error, 'CONFIG_INVALID')) throw error;
    return { file: new Map(), broken: messageOf(error) };
  }
}

/** Combines both, as dockerd does. */
export function effectiveOptions({ flags, file }: DockerdSettings): DockerdOptions {
  return new Map([...file, ...flags]);
}

/** Tells whether Docker's unit reads the environment file, or its copy; without systemd that is assumed. */
function readsEnvFile(plan: DockerPlan, { unit }: DockerFacts): boolean {
  const docker = factValue(unit);
  return (
    docker === undefined || [plan.envFile, gateFile(plan.envFile)].some(file => docker.environmentFiles.includes(file))
  );
}

export function judgeSettings(plan: DockerPlan, facts: DockerFacts, settings: DockerdSettings): readonly Finding[] {
  const { path, text } = facts.daemonJson;
  const conflicts = conflictsOf(plan, facts, settings);
  return [
    ...uncheckedFact('daemon-json', path, text),
    ...uncheckedFact('docker-flags', "dockerd's command line", facts.commandLine),
    ...uncheckedFact('docker-unit', "Docker's unit", facts.unit),
    ...judgeFile(
      path,
      plan,
      settings,
      conflicts.map(({ key }) => key),
    ),
    ...conflicts.map(({ key, found, repair }) =>
      finding('error', key === 'bridge' ? 'bridge-conflict' : 'settings-conflict', [
        found,
        'each in one place',
        repair,
      ]),
    ),
    ...judgeTakenSettings(plan, facts, settings),
    ...judgeEnvFile(plan, facts),
  ];
}

function conflictsOf(plan: DockerPlan, facts: DockerFacts, { flags, file }: DockerdSettings): readonly Conflict[] {
  const { path } = facts.daemonJson;
  const [basic, pools] = [engineOptions(plan, plan.mtu), poolOptions(plan.pools, plan.mtu, engineMajor(facts.engine))];
  const placed = facts.placedFlags.filter(({ running }) => !running);
  const yielded = yieldPools(pools, placesOfOthers(path, file, placed)).conflicts;
  if (plan.config === 'daemon-json')
    return [...conflictsWithFile(basic, file, path, { flags: placed, own: [] }), ...yielded];
  const bridge: readonly Conflict[] =
    flags.has('bridge') && flags.has('bip')
      ? [
          {
            key: 'bridge',
            found: `--bridge (${flags.get('bridge')}) stands beside --bip in dockerd's flags, it does not start again`,
            repair: "take --bridge out of dockerd's flags",
          },
        ]
      : [];
  const hasFlags = readsEnvFile(plan, facts) || plannedKeys.some(key => flags.has(key));
  return [...(hasFlags ? conflictsWithFlags(basic, file, path) : []), ...bridge, ...yielded];
}

/** @param known keys that are conflicts already */
function judgeFile(
  path: string,
  plan: DockerPlan,
  { file, broken, flags }: DockerdSettings,
  known: readonly DockerdKey[],
): readonly Finding[] {
  if (broken !== undefined)
    return [finding('error', 'daemon-json-broken', [broken, 'a JSON object', `python3 -m json.tool ${path}`])];
  const wanted = new Map(engineOptions(plan, plan.mtu).map(({ key, value }) => [key, String(value)]));
  const wrong = plannedKeys.filter(
    key => file.has(key) && !flags.has(key) && !known.includes(key) && file.get(key) !== wanted.get(key),
  );
  if (wrong.length === 0) return [];
  const given = wrong.map(key => `"${key}": ${file.get(key)}`).join(', ');
  return [
    finding('error', 'daemon-json-value', [
      `${path} has ${given}`,
      wrong.map(key => `"${key}": ${wanted.get(key)}`).join(', '),
      plan.config === 'env'
        ? `remove ${wrong.map(key => `"${key}"`).join(' and ')} from ${path}; tartan hands them over in ${plan.envFile}`
        : 'systemctl restart tartand',
    ]),
  ];
}

/** Judges whether the running dockerd, or the one that would start, has the settings from any place. */
function judgeTakenSettings(
  plan: DockerPlan,
  facts: DockerFacts,
  { file, flags, runs }: DockerdSettings,
): readonly Finding[] {
  const unit = factValue(facts.unit);
  const reload = unit?.needsReload
    ? [
        finding('warning', 'unit-changed', [
          "systemd has not read Docker's unit since it was changed",
          'the unit as it is on disk',
          'systemctl daemon-reload',
        ]),
      ]
    : [];
  const hasBridge = flags.has('bridge') || file.has('bridge');
  const missing = plannedKeys.filter(key => !flags.has(key) && !file.has(key) && !(key === 'bip' && hasBridge));
  const taken = missing.length === 0 || (!runs && plan.config === 'env' && readsEnvFile(plan, facts));
  if (taken || (!runs && facts.program === undefined)) return reload;
  const words = missing.map(key => `--${key}`).join(', ');
  return [
    ...reload,
    finding('error', 'settings-not-taken', [
      runs || plan.config === 'daemon-json'
        ? `dockerd ${runs ? 'was' : 'would be'} started without ${words}`
        : `Docker's unit does not read ${plan.envFile}`,
      `the settings of ${settingsFile(plan)}: ${dockerFlags(plan, engineMajor(facts.engine)).join(' ')}`,
      repairOf(plan, unit && facts.dropIn),
    ]),
  ];
}

/** @param dropIn undefined where Docker has no unit, too */
function repairOf({ config, envFile }: DockerPlan, dropIn: string | undefined): string {
  if (config === 'daemon-json') return restartDocker;
  if (dropIn === undefined) return `start dockerd with $DOCKER_NETWORK_OPTIONS of ${envFile}`;
  return `install -D -m 644 ${dropIn} ${dropInPlace} && systemctl daemon-reload && ${restartDocker}`;
}

function judgeEnvFile(plan: DockerPlan, facts: DockerFacts): readonly Finding[] {
  const { envFile } = facts;
  if (plan.config === 'daemon-json') return [];
  if (!envFile.known) return uncheckedFact('env-file', plan.envFile, envFile);
  const settings = bridgeSettings(envOptions(envFile.value ?? ''));
  if (settings && samePrefix(settings.bridge, plan.bridge) && settings.mtu === plan.mtu) return [];
  const found = settings ? `hands over ${formatBridgeAddress(settings.bridge)}, MTU ${settings.mtu}` : 'cannot be used';
  return [
    finding('error', 'env-file', [
      envFile.value === undefined ? `there is no ${plan.envFile}` : `${plan.envFile} ${found}`,
      dockerFlags(plan, engineMajor(facts.engine)).join(' '),
      'systemctl restart tartand',
    ]),
  ];
}
