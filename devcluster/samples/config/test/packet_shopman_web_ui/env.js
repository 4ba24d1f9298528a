window.env = { environment: "test", project: "packet_shopman_web_ui", api: "http://api.test.package.test" };
