/** The queries of the Grafana dashboard, as Grafana would ask them. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './tools.js';

export interface PanelQuery {
  readonly panel: string;
  readonly expression: string;
}

interface Panel {
  readonly title: string;
  readonly targets?: readonly { readonly expr: string }[];
}

/** @param interval in the place of the interval that Grafana chooses by the time shown */
export function panelQueries(interval: string): readonly PanelQuery[] {
  const { panels } = JSON.parse(readFileSync(join(root, 'config/grafana/tartan.json'), 'utf8')) as {
    readonly panels: readonly Panel[];
  };
  return panels.flatMap(({ title, targets = [] }) =>
    targets.map(({ expr }) => ({
      panel: title,
      expression: expr.replaceAll('$__rate_interval', interval).replaceAll('$instance', '.*'),
    })),
  );
}
