/** Options that several commands have alike. */
import { Option } from 'commander';

export const STATE_DIRECTORY = '.sluice';

export function CONFIG_OPTION(): Option {
  return new Option('-c, --config <file>', 'the pipeline file').default('pipeline.yaml');
}

export function STATE_OPTION(): Option {
  return new Option('--state <dir>', 'directory of stage and ledger').default(STATE_DIRECTORY);
}
