window.env = { environment: "test", project: "packet_bsi_pc_ui", api: "http://api.test.package.test" };
