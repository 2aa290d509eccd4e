/**
 * Declares the commands of the operator's tool and their options, and turns the end of a command into an exit status.
 * Called as `subnet-lease`, the tool has its lease commands at the top: `subnet-lease ls` is `tartan lease ls`.
 */
import { basename } from 'node:path';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { showDockerPlan, verifyDocker } from './docker-commands.js';
import { createDockerNetwork } from './docker-network.js';
import { writeDockerOpts } from './docker-opts.js';
import { eventLevels, readSince, showEvents } from './event-commands.js';
import { showFeatures, withdrawOwnFeatures } from './feature-commands.js';
import { addHelp } from './help.js';
import { leave, releaseLease, reserveLease } from './lease-commands.js';
import { echoHeaderBytes, pingPeers } from './ping.js';
import { showPeers } from './peers.js';
import { peerStates } from './peer-view.js';
import type { ToolIo } from './ports.js';
import { cleanUp, getConfig, showLeases, setConfig, showStatus, validateConfig, type Call } from './commands.js';
import { exitStatus, formatToolError, toolErrorOf, usageError, type ExitStatus, type ToolError } from './error.js';
import { addEtcdOptions, addFlag, defaultWebListen, ToolSettings, type OptionValues } from './settings.js';
import { showTop } from './top.js';
import { traceWay } from './trace.js';
import { addSetup } from './setup-commands.js';
import { showVersion } from './version-command.js';
import { version } from '../cli/version.js';

/** Runs a command and sets the exit status. */
export type Run = (command: Command, work: (call: Call, values: OptionValues) => Promise<ExitStatus>) => Promise<void>;

/**
 * @param argv process.argv: the second word is the name by which the tool was called
 * @returns the exit status; never throws
 */
export async function runTool(argv: readonly string[], io: ToolIo): Promise<number> {
  let status: ExitStatus = exitStatus.ok;
  const run: Run = async (command, work) => {
    const values: OptionValues = command.opts();
    const settings = new ToolSettings(values, io.env, io.ports);
    status = await work({ io, settings, output: readOutput(values) }, values);
  };
  const name = basename(argv[1] ?? 'tartan').replace(/\.[cm]?js$/, '');
  try {
    await buildProgram(name, run, io).parseAsync(argv.slice(2), { from: 'user' });
    return status;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? exitStatus.ok : exitStatus.usage;
    const failure = toolErrorOf(error);
    io.stderr(formatToolError(failure));
    return failure.status;
  }
}

/** The commands of the tool without anything behind them, for the man page and the completions. */
export function describeTool(name: 'tartan' | 'subnet-lease'): Command {
  return buildProgram(name, () => Promise.resolve(), { stdout: () => undefined, stderr: () => undefined });
}

function buildProgram(name: string, run: Run, io: Pick<ToolIo, 'stdout' | 'stderr'>): Command {
  const program = new Command(name === 'subnet-lease' ? name : 'tartan');
  program
    .version(version, '--version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .helpCommand(false)
    .exitOverride()
    .configureOutput({
      writeOut: io.stdout,
      writeErr: io.stderr,
      outputError: (text, write) => write(formatToolError(commanderError(text))),
    });
  if (name === 'subnet-lease') {
    program.description('The subnets that the hosts of the overlay hold');
    addLeaseCommands(program, run);
    addHelp(program, 'lease');
    return program;
  }
  program.description('Looks after the overlay network of tartand');
  addSetup(program, run);
  addStatus(program, run);
  addEvents(program, run);
  addPeers(program, run);
  addDoctor(program, run);
  addTop(program, run);
  addTrace(program, run);
  addBugReport(program, run);
  addPing(program, run);
  addLeaseList(program, 'leases', run);
  addLeaseCommands(program.command('lease').description('commands for leases'), run);
  addFeatures(program.command('features').description('what the hosts can receive, as their leases say'), run);
  addConfig(program.command('config').description('the network document in etcd'), run);
  addDocker(program.command('docker').description('what Docker should have, and what it has'), run);
  addDockerOpts(program, run);
  addWeb(program, run);
  addLeave(program, run);
  addCleanup(program, run);
  const versions = program
    .command('version')
    .description('the versions of the program, of its Node.js and of its native half');
  addOutput(versions).action(() => run(versions, async call => showVersion(call)));
  addHelp(program, '');
  return program;
}

/** Shows only the name of an option: a value after `=` may be a secret that was meant for another program. */
function commanderError(text: string): ToolError {
  const cause = text.replace(/^error: /, '').trim();
  return usageError(cause.replace(/(--?[A-Za-z0-9-]+)=[^']*/g, '$1=...'));
}

function addLeaseList(parent: Command, name: string, run: Run): void {
  const command = parent.command(name).description('list the leased subnets and who holds them');
  addHost(addOutput(addEtcdOptions(command))).action(() => run(command, showLeases));
}

function addLeaseCommands(parent: Command, run: Run): void {
  addLeaseList(parent, 'ls', run);
  const reserve = parent
    .command('reserve')
    .description('keep a subnet for a host for ever; what the host leases becomes reserved without an interruption')
    .argument('[subnet]', 'such as 10.5.1.0/24 (what the host has, else one that is free)')
    .option('--public-ip <ip>', 'for the host at this address, seen yet or not')
    .addHelpText('after', '\nWithout --node-id and --public-ip it is for this host.');
  addHost(addOutput(addEtcdOptions(reserve))).action((subnet: string | undefined) =>
    run(reserve, (call, { publicIp, nodeId }) =>
      reserveLease(call, {
        subnet,
        publicIp: typeof publicIp === 'string' ? publicIp : undefined,
        nodeIdGiven: nodeId !== undefined,
      }),
    ),
  );
  const release = parent
    .command('release')
    .description('end a reservation; a host that lives keeps its subnet as an ordinary lease')
    .argument('<subnet>', 'such as 10.5.1.0/24')
    .option('--force', 'its host is surely gone: free the subnet at once, also one kept for a host that went silent');
  addOutput(addEtcdOptions(release)).action((subnet: string) =>
    run(release, (call, values) => releaseLease(call, subnet, values['force'] === true)),
  );
}

function addFeatures(parent: Command, run: Run): void {
  const show = parent.command('show').description('list the features that each lease announces');
  addOutput(addEtcdOptions(show)).action(() => run(show, showFeatures));
  const withdraw = parent
    .command('withdraw')
    .description(
      'remove them from the lease of this host, after its daemon was stopped and before an earlier version runs',
    );
  addHost(addOutput(addEtcdOptions(withdraw))).action(() => run(withdraw, withdrawOwnFeatures));
}

function addHost(command: Command): Command {
  return addFlag(addFlag(addFlag(command, 'run-dir'), 'state-dir'), 'node-id');
}

function addLeave(parent: Command, run: Run): void {
  const command = parent
    .command('leave')
    .description(
      'give the subnet of this host away, after its daemon was stopped: stops the data plane, tells the peers',
    );
  addHost(addOutput(addEtcdOptions(command))).action(() => run(command, leave));
}

function addStatus(parent: Command, run: Run): void {
  const command = parent.command('status').description('what the daemon of this host says of itself');
  addFlag(addOutput(command), 'run-dir').option('--check', 'exit 2 unless the daemon is ready and its health is ok');
  command.action(() => run(command, (call, values) => showStatus(call, values['check'] === true)));
}

function addEvents(parent: Command, run: Run): void {
  const command = parent
    .command('events')
    .description('what happened on this host lately, also while its daemon is away')
    .addOption(new Option('-n, --lines <number>', 'the newest so many').default(50).argParser(readCount))
    .option('--since <time>', 'no older ones: 90s, 15m, 1h, 2d, or a time such as 2026-01-31T08:00')
    .addOption(new Option('--level <level>', 'these and worse ones').choices(eventLevels).default('info'))
    .option('--follow', 'go on with what happens');
  addFlag(addFlag(addOutput(command), 'run-dir'), 'state-dir').action(() =>
    run(command, (call, { lines, since, level, follow }) =>
      showEvents(call, {
        count: Number(lines),
        sinceMs: typeof since === 'string' ? readSince(since, Date.now()) : undefined,
        level: eventLevels.find(name => name === level) ?? 'info',
        follow: follow === true,
      }),
    ),
  );
}

function addPeers(parent: Command, run: Run): void {
  const command = parent
    .command('peers')
    .description('the peers of this host, one line each: state, round trip, loss, path MTU, rates, and why not');
  const state = new Option('--state <state>', 'only peers in this state').choices(peerStates);
  addFlag(addOutput(command), 'run-dir')
    .addOption(state)
    .argument('[target...]', 'subnets, node ids, host names or addresses of peers (all peers)')
    .action((targets: string[]) =>
      run(command, (call, values) =>
        showPeers(
          call,
          targets,
          peerStates.find(word => word === values['state']),
        ),
      ),
    );
}

function addDoctor(parent: Command, run: Run): void {
  const command = parent
    .command('doctor')
    .description(
      'check everything that can be seen from this host; exit 2 when something is wrong, each with its cause',
    )
    .option('--fix', 'put right what is of tartan alone: settings of its link, its file with the subnet');
  addDockerHost(addDockerFiles(addFlag(addEtcdOptions(command), 'state-dir'))).action(() =>
    run(command, async (call, values) => (await import('./doctor.js')).examine(call, values['fix'] === true)),
  );
}

function addTop(parent: Command, run: Run): void {
  const command = parent
    .command('top')
    .description('live rates of each peer and of each reason of a drop, until an interrupt');
  const interval = new Option('-i, --interval <seconds>', 'between two looks').default(1).argParser(readInterval);
  const count = new Option('-n, --count <number>', 'looks, then end').argParser(readCount);
  addFlag(addOutput(command), 'run-dir')
    .addOption(interval)
    .addOption(count)
    .action(() =>
      run(command, (call, values) =>
        showTop(call, {
          intervalMs: 1000 * Number(values['interval']),
          count: typeof values['count'] === 'number' ? values['count'] : undefined,
        }),
      ),
    );
}

function addTrace(parent: Command, run: Run): void {
  const command = parent
    .command('trace')
    .description('the way of a packet to an overlay address, step by step; exit 2 where it would be lost')
    .argument('<address>', 'of a container or a host, such as 10.5.2.7')
    .option('--from <address>', 'a container of this host that sends it (this host itself)');
  addFlag(addOutput(command), 'run-dir').action((address: string) =>
    run(command, (call, { from }) => traceWay(call, address, typeof from === 'string' ? from : undefined)),
  );
}

function readInterval(text: string): number {
  const seconds = /^\d{1,4}(\.\d{1,3})?$/.test(text) ? Number(text) : 0;
  if (seconds >= 0.1 && seconds <= 3600) return seconds;
  throw new InvalidArgumentError('expected seconds from 0.1 to 3600');
}

function addBugReport(parent: Command, run: Run): void {
  const command = parent
    .command('bugreport')
    .description('write one archive with what helps to find a fault of this host, without passwords, tokens and keys')
    .option('--output <file>', 'a new file that ends with .tar.gz or .tar (one of its own in this directory)');
  addHost(addEtcdOptions(command)).action(() =>
    run(command, async (call, { output }) =>
      (await import('./bugreport/bugreport.js')).writeBugReport(call, typeof output === 'string' ? output : undefined),
    ),
  );
}

function addPing(parent: Command, run: Run): void {
  const command = parent
    .command('ping')
    .description('ask peers through the tunnel; exit 2 when one does not answer, or there is none');
  const count = new Option('-c, --count <number>', 'requests to each peer').default(3).argParser(readCount);
  const size = new Option('-s, --size <bytes>', 'bytes of each packet, headers included').default(76);
  addFlag(addOutput(command), 'run-dir')
    .addOption(count)
    .addOption(size.argParser(readSize))
    .option('--df', 'forbid every router to cut the packets (DF): is the whole size carried?')
    .argument('[target...]', 'subnets, node ids, host names or addresses of peers (all peers)')
    .action((targets: string[]) =>
      run(command, (call, values) =>
        pingPeers(call, targets, {
          count: Number(values['count']),
          size: Number(values['size']),
          df: values['df'] === true,
        }),
      ),
    );
}

/** The longest IPv4 packet has 65535 bytes. */
function readSize(text: string): number {
  const size = /^\d{2,5}$/.test(text) ? Number(text) : 0;
  if (size >= echoHeaderBytes && size <= 65_535) return size;
  throw new InvalidArgumentError(`expected ${echoHeaderBytes} to 65535`);
}

function readCount(text: string): number {
  if (/^[1-9]\d{0,2}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('expected 1 to 999');
}

function addConfig(parent: Command, run: Run): void {
  const get = parent.command('get').description('print the network document with what follows from it');
  addEtcdOptions(addOutput(get)).action(() => run(get, getConfig));
  const set = parent.command('set').description('check a network document and write it to etcd');
  addEtcdOptions(addOutput(set))
    .argument('<document>', "a file, '-' for standard input, or the document itself")
    .action((source: string) => run(set, call => setConfig(call, source)));
  const validate = parent.command('validate').description('check a network document and print what follows from it');
  addOutput(validate)
    .argument('<document>', "a file, '-' for standard input, or the document itself")
    .action((source: string) => run(validate, call => validateConfig(call, source)));
}

function addDocker(parent: Command, run: Run): void {
  const plan = parent.command('plan').description('what Docker should have on this host, and where it is handed over');
  addDockerFiles(plan).action(() => run(plan, showDockerPlan));
  const verify = parent
    .command('verify')
    .description('compare that with what Docker really has; exit 2 when something is wrong, each with its repair')
    .option('--daemon-json <file>', "Docker's configuration file (where the dockerd that runs reads it)");
  addDockerHost(addDockerFiles(verify)).action(() =>
    run(verify, (call, { daemonJson }) => verifyDocker(call, typeof daemonJson === 'string' ? daemonJson : undefined)),
  );
  addDockerNetwork(parent.command('network').description("Docker networks on this host's lease"), run);
}

function addDockerNetwork(parent: Command, run: Run): void {
  const create = parent
    .command('create')
    .description('make a bridge network whose containers reach those of other hosts, and are reached by them')
    .argument('<name>', 'as for docker network create')
    .option('--length <number>', 'of its part of the lease (the largest that is free, from 26 to 29)')
    .option('--subnet <cidr>', 'this part of the lease');
  addDockerHost(addFlag(addOutput(create), 'run-dir')).action((name: string) =>
    run(create, (call, { length, subnet }) =>
      createDockerNetwork(call, name, {
        length: typeof length === 'string' ? length : undefined,
        subnet: typeof subnet === 'string' ? subnet : undefined,
      }),
    ),
  );
}

function addWeb(parent: Command, run: Run): void {
  const command = parent
    .command('web')
    .description('a page that shows this host, the leases and who reaches whom; it changes nothing')
    .option('--listen <address:port>', `where it is offered (default ${defaultWebListen})`)
    .option('--socket <path>', 'a socket file instead, for this user alone: ssh -L 8286:PATH HOST brings it near')
    .option('--token-file <file>', 'one word of at least 16 characters that lets people in')
    .option('--tls-cert <file>', 'certificate with its chain (PEM)')
    .option('--tls-key <file>', 'its key (PEM)')
    .option('--status <file...>', 'other hosts in one picture: what tartan status -o json wrote there')
    .option('--hosts <file>', 'and these, asked by tartand --status-listen: lines of URL, TOKEN-FILE and CA-FILE')
    .addHelpText('after', '\nAn address that other hosts reach needs --token-file, --tls-cert and --tls-key.');
  addHost(addEtcdOptions(command)).action(() =>
    run(command, async (call, values) => (await import('./web-command.js')).serveWeb(call, values)),
  );
}

/** Adds the files that are read while the daemon cannot be asked. */
function addDockerFiles(command: Command): Command {
  return addFlag(addFlag(addFlag(addOutput(command), 'run-dir'), 'docker-env-file'), 'subnet-file');
}

function addDockerHost(command: Command): Command {
  return command.option(
    '--docker-host <url>',
    'unix:///path of its socket (DOCKER_HOST, else unix:///var/run/docker.sock)',
  );
}

/** Passes all words to docker-opts: they are the script's options and not this program's. */
function addDockerOpts(parent: Command, run: Run): void {
  const command = parent
    .command('docker-opts')
    .description(
      "write Docker's options to a file as flannel's mk-docker-opts.sh does, with its options (-h lists them)",
    )
    .helpOption(false)
    .allowUnknownOption()
    .argument('[words...]');
  command.action((words: string[]) => run(command, ({ io }) => writeDockerOpts(words, io)));
}

function addCleanup(parent: Command, run: Run): void {
  const command = parent
    .command('cleanup')
    .description('stop the data plane and remove everything of tartan from this host; leases stay until they expire');
  const flannel = new Option('--flannel', 'remove only the packet filter rules that flannel left behind');
  addFlag(addFlag(addOutput(command), 'run-dir'), 'state-dir')
    .addOption(flannel)
    .action((values: OptionValues) => run(command, call => cleanUp(call, values['flannel'] === true)));
}

function addOutput(command: Command): Command {
  const format = new Option('-o, --output <format>', 'how to print').choices(['table', 'wide', 'json']);
  return command.addOption(format.default('table'));
}

function readOutput(values: OptionValues): Call['output'] {
  const output = values['output'];
  return output === 'wide' || output === 'json' ? output : 'table';
}
