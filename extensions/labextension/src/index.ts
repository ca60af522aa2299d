import { ILayoutRestorer, JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette, MainAreaWidget, WidgetTracker } from '@jupyterlab/apputils';
import { ILauncher } from '@jupyterlab/launcher';
import { LabIcon } from '@jupyterlab/ui-components';

import { notebook } from './api';
import { RunWidget } from './run';
import { RunsPanel } from './runs';
import logo from './logo';

const SHOW_RUNS = 'kernelevolve:show-runs';
const OPEN_RUN = 'kernelevolve:open-run';
const NEW_SEARCH = 'kernelevolve:new-search';
const CATEGORY = 'Kernel search';

const icon = new LabIcon({ name: 'kernelevolve:logo', svgstr: logo });

const plugin: JupyterFrontEndPlugin<void> = {
  id: '@kernelevolve/lab:plugin',
  description: 'Browses and steers kernel searches, also while a kernel is busy or dead.',
  autoStart: true,
  optional: [ICommandPalette, ILauncher, ILayoutRestorer],
  activate: (
    app: JupyterFrontEnd,
    palette: ICommandPalette | null,
    launcher: ILauncher | null,
    restorer: ILayoutRestorer | null
  ) => {
    const { commands, shell } = app;
    const tracker = new WidgetTracker<MainAreaWidget<RunWidget>>({ namespace: 'kernelevolve-run' });

    const panel = new RunsPanel(
      run => void commands.execute(OPEN_RUN, { run }),
      () => void commands.execute(NEW_SEARCH)
    );
    panel.title.icon = icon;
    panel.title.caption = 'Kernel search runs';
    shell.add(panel, 'left', { rank: 250 });

    commands.addCommand(SHOW_RUNS, {
      label: 'Show Kernel Search Runs',
      icon,
      describedBy: { args: { type: 'object', properties: {} } },
      execute: () => shell.activateById(panel.id)
    });
    commands.addCommand(OPEN_RUN, {
      label: 'Open Kernel Search Run',
      describedBy: { args: { type: 'object', properties: { run: { type: 'string' } }, required: ['run'] } },
      execute: async args => {
        const run = String(args['run']);
        let widget = tracker.find(open => open.content.run === run);
        if (!widget) {
          widget = new MainAreaWidget({ content: new RunWidget(run) });
          widget.id = `kernelevolve-run-${run}`;
          widget.title.label = run;
          widget.title.icon = icon;
          widget.title.closable = true;
          await tracker.add(widget);
          shell.add(widget, 'main');
        }
        shell.activateById(widget.id);
      }
    });
    commands.addCommand(NEW_SEARCH, {
      label: 'Kernel Search',
      caption: 'A new notebook with the workbench',
      icon,
      describedBy: { args: { type: 'object', properties: { cwd: { type: 'string' } } } },
      execute: async args => {
        const { path } = await notebook(String(args['cwd'] ?? ''));
        await commands.execute('docmanager:open', { path });
      }
    });
    palette?.addItem({ command: SHOW_RUNS, category: CATEGORY });
    palette?.addItem({ command: NEW_SEARCH, category: CATEGORY });
    launcher?.add({ command: NEW_SEARCH, category: 'Notebook', rank: 50 });
    restorer?.add(panel, panel.id);
    void restorer?.restore(tracker, {
      command: OPEN_RUN,
      args: widget => ({ run: widget.content.run }),
      name: widget => widget.content.run
    });
  }
};

export default plugin;
