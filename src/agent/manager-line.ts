/** Tells the service manager what `systemctl status` is to show: the summary, when it changes. Nothing depends on it. */
import { messageOf } from '../lib/errors.js';
import type { AgentPorts } from './ports.js';

/** systemd shows one line. */
const maxText = 400;

export class ManagerLine {
  readonly #ports: Pick<AgentPorts, 'log' | 'notify'>;
  readonly #summary: () => string;
  #told = '';

  constructor(ports: Pick<AgentPorts, 'log' | 'notify'>, summary: () => string) {
    this.#ports = ports;
    this.#summary = summary;
  }

  /** Returns the assignment for sd_notify(3), which then counts as told. */
  take(): string {
    this.#told = this.#summary()
      .replace(/\p{Cc}+/gu, ' ')
      .slice(0, maxText);
    return `STATUS=${this.#told}`;
  }

  tell(): void {
    const before = this.#told;
    try {
      const line = this.take();
      if (this.#told !== before) this.#ports.notify(line);
    } catch (error) {
      this.#ports.log.debug('manager.silent', messageOf(error));
    }
  }
}
