/** Decides which steps make a host join a cluster, and which take that back. Pure: the state of the host in, steps out. */
import { formatEnvironment } from '../cli/environment-file.js';
import { environmentNames, findFlag, type FlagName } from '../cli/flags.js';
import { TartanError } from '../lib/errors.js';
import { shown } from '../model/ip.js';
import { paths, type SetupState, type PathName } from './setup-state.js';
import { removeStep, runStep, writeStep, type SetupStep } from './step.js';

export interface JoinRequest {
  /** The values of tartand's flags, without a password. */
  readonly flags: ReadonlyMap<FlagName, string>;
  /** Files of ours that hold what a token brought. */
  readonly password: string | undefined;
  readonly ca: string | undefined;
}

export interface JoinPlan {
  readonly steps: readonly SetupStep[];
  /** After an undo. */
  readonly settle: readonly (readonly string[])[];
  readonly restarts: boolean;
}

/** @throws TartanError CONFIG_INVALID where the administrator's file wins over a flag with another value */
export function planJoin(request: JoinRequest, state: SetupState): JoinPlan {
  refuseConflict(request.flags, state);
  if (state.tartand.load === 'masked')
    throw new TartanError('HOST_REFUSED', 'tartand.service is masked: systemctl unmask tartand.service');
  const files: [PathName, string, number][] = [
    ...(request.ca === undefined ? [] : [['ca', request.ca, 0o644] as [PathName, string, number]]),
    ...(request.password === undefined
      ? []
      : [['password', `${request.password}\n`, 0o600] as [PathName, string, number]]),
    ['joinFile', formatJoinFile(request.flags), 0o600],
    ...(state.tartand.load === 'not-found' ? [['unit', state.shipped.unit, 0o644] as [PathName, string, number]] : []),
    ['dropIn', state.shipped.dropIn, 0o644],
  ];
  const changed = files.filter(([name, text]) => state.files.get(name) !== text);
  const has = (...names: readonly PathName[]): boolean => changed.some(([name]) => names.includes(name));
  const runs = state.tartand.active !== 'inactive' && state.tartand.active !== 'failed';
  const restarts = runs && has('ca', 'password', 'joinFile', 'unit');
  const reload = ['systemctl', 'daemon-reload'];
  const unit = 'tartand.service';
  return {
    steps: [
      ...changed.map(([name, text, mode]) => writeStep(paths[name], text, mode, state.files.has(name))),
      ...(has('dropIn', 'unit') ? [runStep(reload)] : []),
      ...(state.tartand.file === 'enabled'
        ? []
        : [runStep(['systemctl', '--quiet', 'enable', unit], ['systemctl', '--quiet', 'disable', unit])]),
      ...(runs ? [] : [runStep(['systemctl', '--no-block', 'start', unit], ['systemctl', 'stop', unit])]),
      ...(restarts ? [runStep(['systemctl', '--no-block', 'restart', unit])] : []),
    ],
    settle: [reload, ...(restarts ? [['systemctl', '--no-block', 'restart', unit]] : [])],
    restarts,
  };
}

function formatJoinFile(flags: ReadonlyMap<FlagName, string>): string {
  const variables = new Map([...flags].map(([name, value]) => [variableOf(name), value] as const));
  return `# Written by tartan join; /etc/default/tartand wins over it.\n${formatEnvironment(variables)}`;
}

function variableOf(name: FlagName): string {
  const flag = findFlag(name);
  return (flag && environmentNames(flag)[0]) ?? '';
}

function refuseConflict(flags: ReadonlyMap<FlagName, string>, { settings, settingsPath }: SetupState): void {
  for (const [name, value] of flags) {
    const theirs = settings.get(variableOf(name));
    if (theirs === undefined || theirs === value) continue;
    throw new TartanError(
      'CONFIG_INVALID',
      `${variableOf(name)} in ${settingsPath} is '${shown(theirs)}' and wins over '${shown(value)}': take it out there, or give the same`,
    );
  }
}

/** @param left what has no file or unit of ours any more is passed over */
export function planUninstall(state: SetupState, leave: SetupStep, cleanup: SetupStep): readonly SetupStep[] {
  const unit = 'tartand.service';
  const present = (['dropIn', 'joinFile', 'password', 'ca'] as const).filter(name => state.files.has(name));
  const runs = state.tartand.active !== 'inactive' && state.tartand.active !== 'failed';
  const ownUnit = state.files.get('unit') === state.shipped.unit;
  return [
    ...(runs ? [runStep(['systemctl', 'stop', unit], ['systemctl', '--no-block', 'start', unit])] : []),
    ...(state.tartand.active === 'failed' ? [runStep(['systemctl', 'reset-failed', unit])] : []),
    ...(state.tartand.file === 'enabled'
      ? [runStep(['systemctl', '--quiet', 'disable', unit], ['systemctl', '--quiet', 'enable', unit])]
      : []),
    ...(state.files.has('joinFile') ? [leave] : []),
    cleanup,
    ...present.map(name => removeStep(paths[name], 'tartan join')),
    ...(ownUnit ? [removeStep(paths.unit, 'tartan join')] : []),
    ...(present.length > 0 || ownUnit ? [runStep(['systemctl', 'daemon-reload'])] : []),
  ];
}
