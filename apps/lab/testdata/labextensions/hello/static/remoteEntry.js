// A prebuilt extension written by hand: what a module federation build makes of
// one, without the build. It takes everything from the share scope.
(() => {
  let scope
  const take = async (name) => {
    const [version] = Object.keys(scope[name])
    return (await scope[name][version].get())()
  }
  const modules = {
    './extension': async () => {
      const { ICommandPalette } = await take('@jupyterlab/apputils')
      const { INotebookTracker } = await take('@jupyterlab/notebook')
      const { Widget } = await take('@lumino/widgets')
      const { IStatusBar } = await take('@jupyterlab/statusbar')
      const React = (await take('react')).default
      const plugin = (id, rest) => ({ id: `hello:${id}`, autoStart: true, ...rest })
      const plugins = [
        plugin('greeting', {
          requires: [ICommandPalette, INotebookTracker, IStatusBar],
          activate: (app, palette, notebooks, bar) => {
            app.commands.addCommand('hello:greet', { label: 'Say hello', execute: () => `hello from React ${React.version}` })
            palette.addItem({ command: 'hello:greet', category: 'Hello' })
            const item = new Widget()
            item.node.textContent = 'hello ' + (typeof notebooks.currentChanged.connect)
            item.node.id = 'hello-item'
            bar.registerStatusItem('hello', { item, align: 'middle' })
          },
        }),
        plugin('off', { activate: () => { window.helloOff = true } }),
        plugin('broken', { activate: () => { throw new Error('this plugin always fails') } }),
      ]
      return () => ({ __esModule: true, default: plugins })
    },
    './mime': async () => {
      const { Widget } = await take('@lumino/widgets')
      class Shout extends Widget {
        async renderModel(model) {
          this.node.className = 'hello-shout'
          this.node.textContent = String(model.data['text/x-hello']).toUpperCase()
        }
      }
      const extension = { id: 'hello:shout', dataType: 'string', rendererFactory: { safe: true, mimeTypes: ['text/x-hello'], createRenderer: () => new Shout() } }
      return () => ({ __esModule: true, default: extension })
    },
  }
  window._JUPYTERLAB = window._JUPYTERLAB || {}
  window._JUPYTERLAB.hello = {
    init: (given) => { scope = given },
    get: (name) => modules[name](),
  }
})()
