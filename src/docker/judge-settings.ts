/** How Docker gets its settings: flags from the environment file, daemon.json, the unit; and what fights what. */
import { parseDaemonJson, parseDockerdFlags, type DockerdKey, type DockerdOptions } from './dockerd-options.js';
import { dockerFlags, envWords, formatBridgeAddress, parseDockerEnv, type DockerPlan } from './docker-plan.js';
import { valueOf } from './fact.js';
import type { DockerFacts } from './facts.js';
import { finding, restartDocker, uncheckedFact, type Finding } from './finding.js';
import { samePrefix } from '../model/ipv4.js';

const handedKeys = ['bip', 'mtu', 'ip-masq'] as const satisfies readonly DockerdKey[];
const dropIn = 'docker.service.d/tartan.conf';
const installDropIn =
  `install -D -m 644 config/systemd/${dropIn} /etc/systemd/system/${dropIn} && ` +
  `systemctl daemon-reload && ${restartDocker}`;

const none: DockerdOptions = new Map();

export interface Settings {
  /** Of the dockerd that runs, else of the one that would be started. */
  readonly flags: DockerdOptions;
  /** Of daemon.json; undefined when dockerd cannot read it either. */
  readonly file: DockerdOptions | undefined;
  readonly runs: boolean;
}

export function readSettings(plan: DockerPlan, facts: DockerFacts): Settings {
  const running = valueOf(facts.commandLine);
  const text = valueOf(facts.daemonJson.text);
  return {
    flags: parseDockerdFlags(running ?? (isHandedOver(plan, facts) ? envWords(valueOf(facts.envFile) ?? '') : [])),
    file: text === undefined ? none : parseDaemonJson(text),
    runs: running !== undefined,
  };
}

/** Both together, as dockerd has them. */
export function effectiveOptions({ flags, file }: Settings): DockerdOptions {
  return new Map([...(file ?? none), ...flags]);
}

/** Whether a start of Docker's unit would take the environment file; without systemd that is not known. */
function isHandedOver(plan: DockerPlan, { unit }: DockerFacts): boolean {
  const docker = valueOf(unit);
  return docker === undefined || docker.environmentFiles.includes(plan.envFile);
}

export function judgeSettings(plan: DockerPlan, facts: DockerFacts, settings: Settings): readonly Finding[] {
  return [
    ...uncheckedFact('daemon-json', facts.daemonJson.path, facts.daemonJson.text),
    ...uncheckedFact('docker-flags', "dockerd's command line", facts.commandLine),
    ...uncheckedFact('docker-unit', "Docker's unit", facts.unit),
    ...judgeFile(facts.daemonJson.path, plan, settings),
    ...judgeConflicts(facts.daemonJson.path, settings),
    ...judgeHandOver(plan, facts, settings),
    ...judgeEnvFile(plan, facts, settings),
  ];
}

function judgeFile(path: string, plan: DockerPlan, { file, flags }: Settings): readonly Finding[] {
  if (!file)
    return [
      finding('error', 'daemon-json-broken', [
        `${path} is not a JSON object: dockerd will not start`,
        'a JSON object',
        `python3 -m json.tool ${path}`,
      ]),
    ];
  const wanted = wantedValues(plan);
  const wrong = handedKeys.filter(key => file.has(key) && !flags.has(key) && file.get(key) !== wanted[key]);
  if (wrong.length === 0) return [];
  const given = wrong.map(key => `"${key}": ${file.get(key)}`).join(', ');
  return [
    finding('error', 'daemon-json-value', [
      `${path} has ${given}`,
      wrong.map(key => `"${key}": ${wanted[key]}`).join(', '),
      `remove ${wrong.map(key => `"${key}"`).join(' and ')} from ${path}; tartan hands them over in ${plan.envFile}`,
    ]),
  ];
}

function judgeConflicts(path: string, { file, flags }: Settings): readonly Finding[] {
  const both = handedKeys.filter(key => file?.has(key) && flags.has(key));
  const conflict =
    both.length === 0
      ? []
      : [
          finding('error', 'settings-conflict', [
            `${both.join(', ')} stand${both.length === 1 ? 's' : ''} in dockerd's flags and in ${path}: dockerd will not start`,
            'each in one place',
            `remove ${both.map(key => `"${key}"`).join(' and ')} from ${path}`,
          ]),
        ];
  const bridge = flags.get('bridge') ?? file?.get('bridge') ?? '';
  if (bridge === '' || !(flags.has('bip') || file?.has('bip'))) return conflict;
  const where = flags.has('bridge') ? "dockerd's flags" : path;
  return [
    ...conflict,
    finding('error', 'bridge-conflict', [
      `bridge (${bridge}) and bip are both given: dockerd will not start`,
      'bip alone',
      `remove "bridge" from ${where}`,
    ]),
  ];
}

/** Whether the dockerd that runs, or the one that would start, has the settings from anywhere. */
function judgeHandOver(plan: DockerPlan, facts: DockerFacts, { file, flags, runs }: Settings): readonly Finding[] {
  const unit = valueOf(facts.unit);
  const reload = unit?.needsReload
    ? [
        finding('warning', 'unit-changed', [
          "systemd has not read Docker's unit since it was changed",
          'the unit as it is on disk',
          'systemctl daemon-reload',
        ]),
      ]
    : [];
  const hasBridge = flags.has('bridge') || file?.has('bridge') === true;
  const missing = handedKeys.filter(key => !flags.has(key) && !file?.has(key) && !(key === 'bip' && hasBridge));
  const taken = runs ? missing.length === 0 : isHandedOver(plan, facts) || file?.has('bip');
  if (taken || (!runs && facts.program === undefined)) return reload;
  const words = missing.map(key => `--${key}`).join(', ');
  return [
    ...reload,
    finding('error', 'settings-not-taken', [
      runs ? `dockerd was started without ${words}` : `Docker's unit does not read ${plan.envFile}`,
      `the flags of ${plan.envFile}: ${dockerFlags(plan).join(' ')}`,
      unit === undefined ? `start dockerd with $DOCKER_NETWORK_OPTIONS of ${plan.envFile}` : installDropIn,
    ]),
  ];
}

function judgeEnvFile(plan: DockerPlan, { envFile }: DockerFacts, { file }: Settings): readonly Finding[] {
  if (!envFile.known) return uncheckedFact('env-file', plan.envFile, envFile);
  // The other way of handing over.
  if (file?.has('bip')) return [];
  const told = envFile.value === undefined ? undefined : parseDockerEnv(envFile.value);
  if (told && samePrefix(told.bridge, plan.bridge) && told.mtu === plan.mtu) return [];
  const found = told ? `hands over ${formatBridgeAddress(told.bridge)}, MTU ${told.mtu}` : 'cannot be used';
  return [
    finding('error', 'env-file', [
      envFile.value === undefined ? `there is no ${plan.envFile}` : `${plan.envFile} ${found}`,
      dockerFlags(plan).join(' '),
      'systemctl restart tartand',
    ]),
  ];
}

function wantedValues(plan: DockerPlan): Readonly<Record<(typeof handedKeys)[number], string>> {
  return { bip: formatBridgeAddress(plan.bridge), mtu: String(plan.mtu), 'ip-masq': 'false' };
}
