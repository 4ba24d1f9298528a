window.env = { environment: "test", project: "packet_outcustome_pc_ui", api: "http://api.test.package.test" };
